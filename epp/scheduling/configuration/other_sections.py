"""Read the sections of an EndpointPickerConfig other than plugins and profiles.

Each setting is applied, ignored with a notice, or refused.
"""

from collections.abc import Iterator, Mapping

import msgspec

from epp.scheduling.configuration.document import Document
from epp.scheduling.configuration.parameters import instantiate
from epp.scheduling.configuration.refused import REFUSED
from epp.scheduling.configuration.spec import DataLayerSpec, EndpointPickerConfig, SaturationDetectorSpec
from epp.scheduling.plugin import Plugin, ProfileHandler, Scorer
from epp.scheduling.plugins.admission import UtilizationDetector
from epp.scheduling.plugins.markers import CoreMetricsExtractor, MetricsDataSource, OpenAiParser, PassthroughParser

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_PARSERS = (OpenAiParser, PassthroughParser)
_THRESHOLDS = {
    "queue_depth_threshold": "queueDepthThreshold",
    "kv_cache_util_threshold": "kvCacheUtilThreshold",
    "metrics_staleness_threshold": "metricsStalenessThreshold",
}


def read_other_sections(spec: EndpointPickerConfig, plugins: Mapping[str, Plugin], document: Document) -> Iterator[str]:
    """Yield a notice for each setting that is ignored, with the reason; DocumentError for unsupported settings."""
    for index, gate in enumerate(spec.feature_gates):
        yield from _gate(gate, f"$.featureGates[{index}]", document)
    if spec.data_layer is not None:
        yield from _data_layer(spec.data_layer, plugins, document)
    if spec.flow_control is not None and _asks_for_more(spec):
        yield (
            "$.flowControl: ignored except saturationDetector, because the feature gate flowControl is off: requests "
            "aren't queued; requests of a priority below 0 are shed when the pool is saturated"
        )
    yield from _idle_references(spec, plugins)
    parsers = spec.request_handler.parsers if spec.request_handler else ()
    for index, parser in enumerate(parsers):
        place = f"$.requestHandler.parsers[{index}].pluginRef"
        _refers(parser.plugin_ref, _PARSERS, plugins, place, document)
    if spec.parser is not None:
        _refers(spec.parser.plugin_ref, _PARSERS, plugins, "$.parser.pluginRef", document)


def saturation_detector(
    spec: EndpointPickerConfig, plugins: Mapping[str, Plugin], environ: Mapping[str, str], document: Document
) -> UtilizationDetector:
    """Return the detector that the configuration names, describes or declares.

    Otherwise build one from the environment and the defaults.
    """
    newer = spec.flow_control.saturation_detector if spec.flow_control else None
    path = "$.saturationDetector" if newer is None else "$.flowControl.saturationDetector"
    asked = newer or spec.saturation_detector or SaturationDetectorSpec()
    if asked.plugin_ref:
        _refers(asked.plugin_ref, (UtilizationDetector,), plugins, f"{path}.pluginRef", document)
    values = {parameter: getattr(asked, name) for name, parameter in _THRESHOLDS.items()}
    given = {parameter: value for parameter, value in values.items() if value is not None}
    if given and asked.plugin_ref:
        raise document.error("give pluginRef or thresholds, not both", path)
    declared = [p for p in plugins.values() if isinstance(p, UtilizationDetector)]
    named = plugins.get(asked.plugin_ref or UtilizationDetector.type_name)
    if isinstance(named, UtilizationDetector) and not given:
        return named
    if len(declared) == 1 and not given:
        return declared[0]
    try:
        return instantiate(UtilizationDetector, given, environ)
    except msgspec.ValidationError as error:
        raise document.error(str(error), path) from error


def _gate(gate: str, path: str, document: Document) -> Iterator[str]:
    name, _, value = gate.partition("=")
    value = value.strip().lower() or "true"
    if value not in _TRUE + _FALSE:
        raise document.error(f"{gate!r}: expected name, name=true or name=false", path)
    if name == "flowControl":
        if value in _TRUE:
            raise document.error(
                "flow control is not implemented: requests aren't queued; requests of a priority below 0 are shed "
                "when the pool is saturated; remove the gate",
                path,
            )
    elif name == "haPopulateNonLeaderDatastore":
        yield f"{path}: ignored: every replica knows the pool"
    else:
        raise document.error(f"unknown feature gate {name!r}", path)


def _data_layer(spec: DataLayerSpec, plugins: Mapping[str, Plugin], document: Document) -> Iterator[str]:
    for index, source in enumerate(spec.sources):
        path = f"$.dataLayer.sources[{index}]"
        _refers(source.plugin_ref, (MetricsDataSource,), plugins, f"{path}.pluginRef", document)
        for extractor_index, extractor in enumerate(source.extractors):
            place = f"{path}.extractors[{extractor_index}].pluginRef"
            _refers(extractor.plugin_ref, (CoreMetricsExtractor,), plugins, place, document)
    if spec.discovery is not None:
        raise document.error("endpoints come from flags: --endpoints-file or --pool-name", "$.dataLayer.discovery")
    for name in ("peer_discovery", "cross_replica_syncer_plugin_ref", "cross_replica_sync_interval"):
        if getattr(spec, name):
            place = next(f.encode_name for f in msgspec.structs.fields(spec) if f.name == name)
            raise document.error("replicas of the picker don't share state; remove it", f"$.dataLayer.{place}")
    if not spec.inject_defaults:
        yield "$.dataLayer.injectDefaults: ignored: endpoints are always scraped"


def _idle_references(spec: EndpointPickerConfig, plugins: Mapping[str, Plugin]) -> Iterator[str]:
    for index, profile in enumerate(spec.scheduling_profiles):
        for position, ref in enumerate(profile.plugins):
            place, plugin = f"$.schedulingProfiles[{index}].plugins[{position}]", plugins.get(ref.plugin_ref)
            if ref.weight is not None and plugin and not isinstance(plugin, Scorer):
                yield f"{place}.weight: ignored: {ref.plugin_ref} is no scorer"
            if isinstance(plugin, ProfileHandler):
                yield f"{place}: ignored: {ref.plugin_ref} is a profile handler and belongs to no profile"


def _asks_for_more(spec: EndpointPickerConfig) -> bool:
    fields = msgspec.structs.asdict(spec.flow_control) if spec.flow_control else {}
    return any(value is not None for name, value in fields.items() if name != "saturation_detector")


def _refers(
    ref: str, classes: tuple[type[Plugin], ...], plugins: Mapping[str, Plugin], path: str, document: Document
) -> None:
    """Check that `ref` names a declared plugin of one of the classes, or the type of one, declared or not."""
    named = plugins.get(ref)
    types = [cls.type_name for cls in classes]
    if named is None and ref in REFUSED:
        raise document.error(f"{ref}: {REFUSED[ref]}", path)
    if named is None and ref not in types:
        raise document.error(f"{ref!r} names no declared plugin", path)
    if named is not None and not isinstance(named, classes):
        raise document.error(f"{ref!r} is of type {type(named).type_name}; expected {' or '.join(types)}", path)
