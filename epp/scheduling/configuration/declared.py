"""Build the plugins that a configuration document declares."""

from collections.abc import Mapping

import msgspec

from epp.scheduling.configuration.document import Document, suggest
from epp.scheduling.configuration.parameters import defaults, instantiate
from epp.scheduling.configuration.refused import REFUSED
from epp.scheduling.configuration.spec import API_VERSIONS, KIND, LLM_D, EndpointPickerConfig, PluginSpec
from epp.scheduling.plugin import Plugin, plugin_types
from epp.scheduling.plugins.prefix import ApproxPrefixCacheProducer, sizes_prefix_index


def read_spec(document: Document) -> EndpointPickerConfig:
    """Convert the document to a configuration; DocumentError for an unknown, missing or wrongly typed field."""
    try:
        spec = msgspec.convert(document.value, EndpointPickerConfig)
    except msgspec.ValidationError as error:
        raise document.located(error) from error
    if spec.api_version not in API_VERSIONS:
        raise document.error(f"{spec.api_version!r}: expected {' or '.join(API_VERSIONS)}", "$.apiVersion")
    if spec.kind != KIND:
        raise document.error(f"{spec.kind!r}: expected {KIND}", "$.kind")
    return spec


def read_plugins(
    spec: EndpointPickerConfig, document: Document, environ: Mapping[str, str], environ_first: bool
) -> dict[str, Plugin]:
    """Build the declared plugins by name, each bound to the others."""
    plugins: dict[str, Plugin] = {}
    for index, declared in enumerate(spec.plugins):
        path = f"$.plugins[{index}]"
        plugin = _plugin(declared, path, document, environ, environ_first)
        if (name := declared.name or declared.type) in plugins:
            raise document.error(f"a plugin named {name!r} is declared twice", path)
        plugins[name] = plugin
    _check_producers(spec, plugins, document)
    if spec.api_version == LLM_D and not sizes_prefix_index(plugins.values()):
        plugins[ApproxPrefixCacheProducer.type_name] = ApproxPrefixCacheProducer()
    try:
        return {name: plugin.bound(tuple(plugins.values())) for name, plugin in plugins.items()}
    except ValueError as error:
        raise document.error(str(error), "$.plugins") from error


def _plugin(
    declared: PluginSpec, path: str, document: Document, environ: Mapping[str, str], environ_first: bool
) -> Plugin:
    cls = plugin_types().get(declared.type)
    if cls is None and declared.type in REFUSED:
        raise document.error(f"{declared.type}: {REFUSED[declared.type]}", f"{path}.type")
    if cls is None:
        meant = suggest(declared.type, plugin_types())
        raise document.error(f"unknown plugin type {declared.type!r}; {meant}", f"{path}.type")
    try:
        return instantiate(cls, declared.parameters or {}, environ, environ_first)
    except msgspec.ValidationError as error:
        raise document.located(error, f"{path}.parameters", defaults(cls)) from error


def _check_producers(spec: EndpointPickerConfig, plugins: Mapping[str, Plugin], document: Document) -> None:
    for index, declared in enumerate(spec.plugins):
        plugin = plugins[declared.name or declared.type]
        for parameter, type_name in plugin.producers.items():
            name = (declared.parameters or {}).get(parameter) or type_name
            producer = plugins.get(name)
            if (producer is None and name != type_name) or (producer and type(producer).type_name != type_name):
                place = f"$.plugins[{index}].parameters.{parameter}"
                raise document.error(f"{name!r} names no declared {type_name}", place)
