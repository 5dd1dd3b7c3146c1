"""Envoy's part of traces: it sends spans to the collector that OpenTelemetry's variables name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import HttpService, HttpUri
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManagerTracing
from envoy_data_plane.google.protobuf import Any

from headroom.gateway import clusters

_CLUSTER = "collector"
_SERVICE = "headroom-envoy"
_TIMEOUT = timedelta(seconds=5)
_TRACES = "/v1/traces"
_DEFAULT = "http://localhost:4318"


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector of spans by OTLP over HTTP. `path` has the query, too."""

    host: str
    port: int
    path: str


def collector(environ: Mapping[str, str]) -> Collector:
    """Return the collector that the variables name, as OpenTelemetry's specification of OTLP exporters says.

    Raise ValueError, which names the variable, for one that Envoy can't reach.
    """
    whole, base = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    name = whole if environ.get(whole) else base
    given = environ.get(name) or _DEFAULT
    url = given if name == whole else given.rstrip("/") + _TRACES
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ValueError(f"{name}: {given!r} is no URL: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{name}: expected http://HOST:PORT, got {given!r}: Envoy sends spans without TLS")
    return Collector(parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def collector_cluster(found: Collector) -> Cluster:
    host = f"[{found.host}]" if ":" in found.host else found.host
    return clusters.http1_cluster(_CLUSTER, f"{host}:{found.port}")


def tracing(found: Collector) -> HttpConnectionManagerTracing:
    """Return the tracing of a listener. A client's trace goes on; other requests begin a trace of their own."""
    uri = HttpUri(uri=f"http://{found.host}:{found.port}{found.path}", cluster=_CLUSTER, timeout=_TIMEOUT)
    config = OpenTelemetryConfig(http_service=HttpService(http_uri=uri), service_name=_SERVICE)
    provider = TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(config))
    return HttpConnectionManagerTracing(provider=provider)
