"""Build a Scheduler from an EndpointPickerConfig, which is read strictly and completed by defaults."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from epp.scheduling.configuration.declared import read_plugins, read_spec
from epp.scheduling.configuration.document import Document, read_document, suggest
from epp.scheduling.configuration.other_sections import read_other_sections, saturation_detector
from epp.scheduling.configuration.spec import EndpointPickerConfig, PluginRef, ProfileSpec
from epp.scheduling.plugin import Admitter, Filter, Picker, Plugin, ProfileHandler, Scorer
from epp.scheduling.plugins.admission import UtilizationDetector
from epp.scheduling.plugins.latency import PredictedLatencyProducer
from epp.scheduling.plugins.load import KvCacheUtilizationScorer, QueueScorer
from epp.scheduling.plugins.pickers import MaxScorePicker
from epp.scheduling.plugins.prefix import PrefixCacheScorer, prefix_parameters
from epp.scheduling.plugins.profiles import SingleProfileHandler, SloAwareProfileHandler
from epp.scheduling.plugins.slo import SloAdmitter, SloScorer
from epp.scheduling.profile import Profile, WeightedScorer
from epp.scheduling.scheduler import Scheduler

__all__ = ["DEFAULT_CONFIG", "load_scheduler"]

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

_MAX_WEIGHT = 1e9
K = TypeVar("K", bound=Plugin)


def load_scheduler(text: str, environ: Mapping[str, str]) -> Scheduler:
    """Build the scheduler that a configuration describes; ConfigError gives the path and line of the mistake.

    The text wins over `environ`, and `environ` over the defaults. With DEFAULT_CONFIG, `environ` wins over the text.
    """
    document = read_document(text)
    spec = read_spec(document)
    plugins = read_plugins(spec, document, environ, environ_first=text == DEFAULT_CONFIG)
    notices = [*_own_notices(plugins), *read_other_sections(spec, plugins, document)]
    profiles = {
        profile.name: _profile(index, profile, plugins, document)
        for index, profile in _profiles(spec, plugins, document)
    }
    handler = _handler(spec, plugins, document)
    if isinstance(handler, SloAwareProfileHandler):
        profiles.setdefault("default", _builtin_default(plugins))
    try:
        handler.check(tuple(profiles))
    except ValueError as error:
        raise document.error(str(error), "$.schedulingProfiles") from error
    detector = saturation_detector(spec, plugins, environ, document)
    return Scheduler(
        profiles=profiles,
        handler=handler,
        prefix=prefix_parameters(tuple(plugins.values())),
        admitters=_admitters(detector, profiles, plugins),
        plugins=plugins,
        predict=_predict(plugins),
        notices=tuple(notices),
    )


def _profiles(
    spec: EndpointPickerConfig, plugins: Mapping[str, Plugin], document: Document
) -> Iterable[tuple[int, ProfileSpec]]:
    if not spec.scheduling_profiles:
        usable = (Filter, Scorer, Picker)
        refs = tuple(PluginRef(name) for name, plugin in plugins.items() if isinstance(plugin, usable))
        return [(0, ProfileSpec("default", refs))]
    seen: set[str] = set()
    for index, profile in enumerate(spec.scheduling_profiles):
        path = f"$.schedulingProfiles[{index}].name"
        if not profile.name:
            raise document.error("a profile needs a name", path)
        if profile.name in seen:
            raise document.error(f"two profiles are named {profile.name!r}", path)
        seen.add(profile.name)
    return enumerate(spec.scheduling_profiles)


def _profile(index: int, spec: ProfileSpec, plugins: Mapping[str, Plugin], document: Document) -> Profile:
    path = f"$.schedulingProfiles[{index}]"
    for position, ref in enumerate(spec.plugins):
        _check_ref(ref, f"{path}.plugins[{position}]", plugins, document)
    if not spec.plugins:
        raise document.error(f"profile {spec.name!r} is empty: refer to at least one plugin", path)
    if len({ref.plugin_ref for ref in spec.plugins}) < len(spec.plugins):
        raise document.error(f"profile {spec.name!r} refers to a plugin twice", path)
    named = [(ref, plugins[ref.plugin_ref]) for ref in spec.plugins]
    pickers = [plugin for _, plugin in named if isinstance(plugin, Picker)]
    if len(pickers) > 1:
        raise document.error(f"profile {spec.name!r} has two pickers; name one", path)
    return Profile(
        spec.name,
        tuple(plugin for _, plugin in named if isinstance(plugin, Filter)),
        tuple(
            WeightedScorer(ref.plugin_ref, plugin, 1.0 if ref.weight is None else ref.weight)
            for ref, plugin in named
            if isinstance(plugin, Scorer)
        ),
        next(iter(pickers or _of_kind(plugins, Picker)), MaxScorePicker()),
    )


def _check_ref(ref: PluginRef, path: str, plugins: Mapping[str, Plugin], document: Document) -> None:
    if ref.plugin_ref not in plugins:
        meant = suggest(ref.plugin_ref, plugins)
        raise document.error(f"{ref.plugin_ref!r} names no declared plugin; {meant}", f"{path}.pluginRef")
    if ref.weight is not None and not 0 <= ref.weight <= _MAX_WEIGHT:
        raise document.error(f"expected a weight from 0 to {_MAX_WEIGHT:g}, got {ref.weight}", f"{path}.weight")


def _builtin_default(plugins: Mapping[str, Plugin]) -> Profile:
    scorers = {
        "queue-scorer": QueueScorer(),
        "kv-cache-utilization-scorer": KvCacheUtilizationScorer(),
        "prefix-cache-scorer": PrefixCacheScorer().bound(tuple(plugins.values())),
    }
    weighted = tuple(WeightedScorer(name, scorer, 1.0) for name, scorer in scorers.items())
    return Profile("default", (), weighted, MaxScorePicker())


def _handler(spec: EndpointPickerConfig, plugins: Mapping[str, Plugin], document: Document) -> ProfileHandler:
    handlers = [(index, p) for index, p in enumerate(plugins.values()) if isinstance(p, ProfileHandler)]
    for index, _ in handlers[1:]:
        raise document.error("more than one profile handler; declare only one", f"$.plugins[{index}]")
    for _, handler in handlers:
        return handler
    if len(spec.scheduling_profiles) > 1:
        count = len(spec.scheduling_profiles)
        raise document.error(f"{count} profiles need a profile handler; declare one under plugins", "$.plugins")
    return SingleProfileHandler()


def _admitters(
    detector: UtilizationDetector, profiles: Mapping[str, Profile], plugins: Mapping[str, Plugin]
) -> tuple[Admitter, ...]:
    """Return the admitters in order: saturation, one for each slo-scorer in a profile, other declared ones."""
    of_scorers = dict.fromkeys(
        SloAdmitter(weighted.scorer)
        for profile in profiles.values()
        for weighted in profile.scorers
        if isinstance(weighted.scorer, SloScorer)
    )
    declared = [admitter for admitter in _of_kind(plugins, Admitter) if not isinstance(admitter, UtilizationDetector)]
    return (detector, *of_scorers, *declared)


def _predict(plugins: Mapping[str, Plugin]) -> bool | None:
    """Return whether a declared producer predicts for every request or for none; None leaves it to the profiles."""
    producers = _of_kind(plugins, PredictedLatencyProducer)
    return producers[0].predict_in_produce if producers else None


def _own_notices(plugins: Mapping[str, Plugin]) -> Iterable[str]:
    return [f"{name}: {notice}" for name, plugin in plugins.items() for notice in plugin.notices]


def _of_kind(plugins: Mapping[str, Plugin], kind: type[K]) -> list[K]:
    return [plugin for plugin in plugins.values() if isinstance(plugin, kind)]
