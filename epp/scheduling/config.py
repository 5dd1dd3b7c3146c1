"""EndpointPickerConfig: strictly read, completed by the defaults that its users rely on, and made into a Scheduler."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import yaml

from epp.exceptions import ConfigError
from epp.scheduling.plugin import Filter, Picker, Plugin, ProfileHandler, Scorer, registered
from epp.scheduling.plugins.load import KvCacheUtilizationScorer, QueueScorer
from epp.scheduling.plugins.pickers import MaxScorePicker
from epp.scheduling.plugins.prefix import PrefixCacheScorer
from epp.scheduling.plugins.profiles import SingleProfileHandler, SloAwareProfileHandler
from epp.scheduling.profile import Profile, WeightedScorer
from epp.scheduling.scheduler import Scheduler

__all__ = ["DEFAULT_CONFIG", "load_scheduler"]

API_VERSIONS = ("inference.networking.x-k8s.io/v1alpha1",)
_MAX_CONFIG_BYTES = 1 << 20

DEFAULT_CONFIG = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: slo-request-tracker
- type: slo-scorer
- type: slo-aware-profile-handler
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: kv-cache-utilization-scorer
  - pluginRef: prefix-cache-scorer
  - pluginRef: max-score-picker
- name: slo
  plugins:
  - pluginRef: slo-request-tracker
  - pluginRef: prefix-cache-scorer
    weight: 0
  - pluginRef: slo-scorer
  - pluginRef: max-score-picker
"""


class PluginSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    name: str = ""
    parameters: dict[str, Any] = {}


class PluginRef(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    plugin_ref: str
    weight: float | None = None


class ProfileSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    plugins: tuple[PluginRef, ...] = ()


class EndpointPickerConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    api_version: str
    kind: str
    plugins: tuple[PluginSpec, ...] = ()
    scheduling_profiles: tuple[ProfileSpec, ...] = ()


def load_scheduler(text: str, environ: Mapping[str, str]) -> Scheduler:
    """The scheduler that a configuration describes; ConfigError with the place of what is wrong."""
    document = _parse(text)
    plugins = _plugins(document, environ)
    profiles = {spec.name: _profile(spec, plugins) for spec in _profile_specs(document, plugins)}
    handler = _handler(plugins, len(profiles))
    if isinstance(handler, SloAwareProfileHandler):
        profiles.setdefault("default", _builtin_default())
    try:
        handler.check(tuple(profiles))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    prefix = next((p for p in plugins.values() if isinstance(p, PrefixCacheScorer)), PrefixCacheScorer())
    return Scheduler(profiles, handler, prefix)


def _parse(text: str) -> EndpointPickerConfig:
    if len(text) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"the configuration is larger than {_MAX_CONFIG_BYTES} bytes")
    try:
        document = msgspec.convert(yaml.safe_load(text), EndpointPickerConfig)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    if document.api_version not in API_VERSIONS:
        raise ConfigError(f"apiVersion {document.api_version!r}: expected {' or '.join(API_VERSIONS)}")
    if document.kind != "EndpointPickerConfig":
        raise ConfigError(f"kind {document.kind!r}: expected EndpointPickerConfig")
    return document


def _plugins(document: EndpointPickerConfig, environ: Mapping[str, str]) -> dict[str, Plugin]:
    known = registered()
    plugins: dict[str, Plugin] = {}
    for index, spec in enumerate(document.plugins):
        where = f"$.plugins[{index}]"
        name = spec.name or spec.type
        if spec.type not in known:
            raise ConfigError(f"{where}.type: unknown plugin type {spec.type!r}; known: {', '.join(sorted(known))}")
        if name in plugins:
            raise ConfigError(f"{where}: a plugin named {name!r} is declared twice")
        plugins[name] = _instantiate(known[spec.type], spec.parameters, environ, where)
    return plugins


def _instantiate(cls: type[Plugin], parameters: dict[str, Any], environ: Mapping[str, str], where: str) -> Plugin:
    for variable, parameter in cls.environment.items():
        if variable in environ and parameter not in parameters:
            try:
                msgspec.convert({parameter: environ[variable]}, cls, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"environment variable {variable}={environ[variable]!r}: {error}") from error
            parameters = {**parameters, parameter: environ[variable]}
    try:
        return msgspec.convert(parameters, cls, strict=not cls.environment)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}.parameters: {error}") from error


def _profile_specs(document: EndpointPickerConfig, plugins: Mapping[str, Plugin]) -> tuple[ProfileSpec, ...]:
    if document.scheduling_profiles:
        names = [profile.name for profile in document.scheduling_profiles]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"$.schedulingProfiles: two profiles are named {name!r}")
        return document.scheduling_profiles
    usable = (Filter, Scorer, Picker)
    refs = tuple(PluginRef(name) for name, plugin in plugins.items() if isinstance(plugin, usable))
    return (ProfileSpec("default", refs),)


def _profile(spec: ProfileSpec, plugins: Mapping[str, Plugin]) -> Profile:
    where = f"profile {spec.name!r}"
    for ref in spec.plugins:
        if ref.plugin_ref not in plugins:
            raise ConfigError(f"{where}: pluginRef {ref.plugin_ref!r} names no declared plugin")
    weighted = tuple(
        WeightedScorer(ref.plugin_ref, scorer, 1.0 if ref.weight is None else ref.weight)
        for ref in spec.plugins
        if isinstance(scorer := plugins[ref.plugin_ref], Scorer)
    )
    named = [plugins[ref.plugin_ref] for ref in spec.plugins]
    pickers = _of_kind(named, Picker)
    if len(pickers) > 1:
        raise ConfigError(f"{where}: two pickers; name one")
    declared = _of_kind(plugins.values(), Picker)
    picker = pickers[0] if pickers else declared[0] if declared else MaxScorePicker()
    return Profile(spec.name, tuple(_of_kind(named, Filter)), weighted, picker)


def _builtin_default() -> Profile:
    scorers = {
        "queue-scorer": QueueScorer(),
        "kv-cache-utilization-scorer": KvCacheUtilizationScorer(),
        "prefix-cache-scorer": PrefixCacheScorer(),
    }
    weighted = tuple(WeightedScorer(name, scorer, 1.0) for name, scorer in scorers.items())
    return Profile("default", (), weighted, MaxScorePicker())


def _handler(plugins: Mapping[str, Plugin], profile_count: int) -> ProfileHandler:
    handlers = _of_kind(plugins.values(), ProfileHandler)
    if len(handlers) > 1:
        raise ConfigError("$.plugins: two profile handlers; declare one")
    if handlers:
        return handlers[0]
    if profile_count != 1:
        raise ConfigError(f"{profile_count} profiles need a profile handler; declare one under plugins")
    return SingleProfileHandler()


K = TypeVar("K", bound=Plugin)


def _of_kind(plugins: Any, kind: type[K]) -> list[K]:
    return [plugin for plugin in plugins if isinstance(plugin, kind)]
