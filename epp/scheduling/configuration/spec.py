"""The schema of EndpointPickerConfig, for the gateway API's version and llm-d's, which has more fields."""

from typing import Any

import msgspec

LLM_D = "llm-d.ai/v1alpha1"
API_VERSIONS = ("inference.networking.x-k8s.io/v1alpha1", LLM_D)
KIND = "EndpointPickerConfig"


class PluginSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    name: str = ""
    parameters: dict[str, Any] | None = None


class PluginRef(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    plugin_ref: str
    weight: float | None = None


class ProfileSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    plugins: tuple[PluginRef, ...] = ()


class Reference(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    plugin_ref: str


class SaturationDetectorSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A reference to a detector, or a detector's parameters, as the gateway API's picker accepts them."""

    plugin_ref: str = ""
    queue_depth_threshold: int | None = None
    kv_cache_util_threshold: float | None = None
    metrics_staleness_threshold: str | None = None


class SourceSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    plugin_ref: str
    extractors: tuple[Reference, ...] = ()


class DataLayerSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    inject_defaults: bool = True
    sources: tuple[SourceSpec, ...] = ()
    discovery: Reference | None = None
    peer_discovery: Reference | None = None
    cross_replica_syncer_plugin_ref: str = ""
    cross_replica_sync_interval: str = ""


class FlowControlSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Only `saturation_detector` is used. The other fields are listed so that a misspelt field is an error."""

    saturation_detector: SaturationDetectorSpec | None = None
    max_bytes: Any = None
    max_requests: Any = None
    default_request_ttl: Any = msgspec.field(name="defaultRequestTTL", default=None)
    no_endpoint_request_ttl: Any = msgspec.field(name="noEndpointRequestTTL", default=None)
    default_priority_band: Any = None
    default_negative_priority_band: Any = None
    priority_bands: Any = None
    usage_limit_policy_plugin_ref: Any = None
    enable_eviction: Any = None


class RequestHandlerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parsers: tuple[Reference, ...] = ()


class EndpointPickerConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    api_version: str
    kind: str
    plugins: tuple[PluginSpec, ...] = ()
    scheduling_profiles: tuple[ProfileSpec, ...] = ()
    feature_gates: tuple[str, ...] = ()
    data_layer: DataLayerSpec | None = None
    flow_control: FlowControlSpec | None = None
    request_handler: RequestHandlerSpec | None = None
    saturation_detector: SaturationDetectorSpec | None = None
    parser: Reference | None = None
