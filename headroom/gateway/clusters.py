"""Envoy's clusters: the picker, and the model servers."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
    PathConfigSource,
    SocketAddress,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import (
    LeastRequest,
    LeastRequestSelectionMethod,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import (
    OverrideHost,
    OverrideHostOverrideHostSource,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.random.v3 import Random
from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin.v3 import RoundRobin
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import CommonTlsContext, UpstreamTlsContext
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from epp.pool.addresses import is_ip

PICKER, POOL = "picker", "pool"
DESTINATION = "x-gateway-destination-endpoint"
LB_NAMESPACE = "envoy.lb"
BY_ADDRESS = {"verified-by": "address"}
"""The mark of servers whose certificate has no name but an address."""
_SERVED = "x-gateway-destination-endpoint-served"
_EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
_CONNECT_TIMEOUT = timedelta(seconds=2)
_HEALTH_INTERVAL = timedelta(milliseconds=500)
_HEALTH_TIMEOUT = timedelta(milliseconds=500)
# Long enough for two health checks to fail after a refused connection. A health check that passes ends the ejection.
_EJECTION_TIME = timedelta(seconds=5)
_PING_INTERVAL = timedelta(seconds=1)
_PING_TIMEOUT = timedelta(seconds=3)
# Envoy's defaults, 1024 streams and connections and 3 retries, are too few for answers that take minutes.
_UNBOUNDED = CircuitBreakers(
    thresholds=[
        CircuitBreakersThresholds(
            max_connections=1_000_000, max_pending_requests=1_000_000, max_requests=1_000_000, max_retries=1_000
        )
    ]
)


def address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def picker(place: str, *, health_checking: bool) -> Cluster:
    """Return the cluster of the picker at `place` (host:port), over TLS.

    While the picker fails its health checks, no request waits for it. Envoy closes a connection whose pings aren't
    answered, so that requests that wait for a hung picker fail.
    """
    keepalive = KeepaliveSettings(interval=_PING_INTERVAL, timeout=_PING_TIMEOUT)
    http2 = Http2ProtocolOptions(connection_keepalive=keepalive)
    # The picker's certificate is self-signed: TLS only encrypts here.
    tls = UpstreamTlsContext(common_tls_context=CommonTlsContext(alpn_protocols=["h2"]))
    cluster = _cluster(PICKER, [place], HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2))
    cluster.transport_socket = TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(tls))
    # By default, Envoy uses unhealthy hosts when too many are unhealthy, and merges health changes for one second.
    cluster.common_lb_config = ClusterCommonLbConfig(
        healthy_panic_threshold=Percent(value=0), update_merge_window=timedelta(0)
    )
    if health_checking:
        cluster.health_checks = [_health_check()]
        cluster.outlier_detection = _connect_failures()
    return cluster


def pool(servers: Sequence[str] | Path) -> Cluster:
    """Return the cluster of the model servers. They stand in a file with the text of `discovered` if it is a path.

    Envoy tries the endpoints that the picker named, in the picker's order. If there are none, it takes the least busy.
    """
    named = MetadataKey(key=LB_NAMESPACE, path=[MetadataKeyPathSegment(key=DESTINATION)])
    served = MetadataKey(key=LB_NAMESPACE, path=[MetadataKeyPathSegment(key=_SERVED)])
    policy = OverrideHost(
        override_host_sources=[OverrideHostOverrideHostSource(metadata=named)],
        selected_host_key=served,
        fallback_policy=_policy("least_request", LeastRequest()),
    )
    cluster = _servers(POOL, [] if isinstance(servers, Path) else servers)
    cluster.load_balancing_policy = _policy("override_host", policy)
    if isinstance(servers, Path):
        cluster.type, cluster.load_assignment = ClusterDiscoveryType.EDS, None
        cluster.eds_cluster_config = ClusterEdsClusterConfig(eds_config=followed(servers))
    return cluster


def followed(file: Path) -> ConfigSource:
    """Return a source of configuration that Envoy reads when the file is replaced."""
    return ConfigSource(path_config_source=PathConfigSource(path=str(file)), resource_api_version=ApiVersion.V3)


class Server(NamedTuple):
    """A model server at a numeric address. `name` is the host that its certificate must name; empty without TLS."""

    host: str
    port: int
    name: str = ""


def discovered(servers: Sequence[Server]) -> str:
    """Return the file of the pool's model servers. Envoy reads it when it is replaced."""
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": POOL,
        "endpoints": [{"lb_endpoints": [_lb_endpoint(server) for server in servers]}],
    }
    return json.dumps({"resources": [assignment]})


def _lb_endpoint(server: Server) -> dict[str, object]:
    place = {"socket_address": {"address": server.host, "port_value": server.port}}
    if not server.name:
        return {"endpoint": {"address": place}}
    if is_ip(server.name):
        return {
            "endpoint": {"address": place},
            "metadata": {"filter_metadata": {"envoy.transport_socket_match": BY_ADDRESS}},
        }
    return {"endpoint": {"address": place, "hostname": server.name}}


def balanced_cluster(name: str, servers: Sequence[str]) -> Cluster:
    """Return a cluster of the model servers that Envoy balances by the policy `name`, one of BALANCING."""
    cluster = _servers(name, servers)
    cluster.load_balancing_policy = BALANCING[name]
    return cluster


def http1_cluster(name: str, place: str) -> Cluster:
    """Return the cluster of a server at `place` (host:port) that speaks HTTP/1.1 in clear."""
    return _servers(name, [place])


def _servers(name: str, places: Sequence[str]) -> Cluster:
    http1 = Http1ProtocolOptions(enable_trailers=True)
    return _cluster(name, places, HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=http1))


def _cluster(name: str, places: Sequence[str], protocol: HttpProtocolOptionsExplicitHttpConfig) -> Cluster:
    """Return a cluster of these hosts. Envoy resolves names periodically, and uses every address of a name."""
    hosts = [place.rpartition(":") for place in places]
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(host.strip("[]"), int(port)))) for host, _, port in hosts]
    options = Any.pack(HttpProtocolOptions(explicit_http_config=protocol))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=_CONNECT_TIMEOUT,
        circuit_breakers=_UNBOUNDED,
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
    )


def _health_check() -> HealthCheck:
    return HealthCheck(
        interval=_HEALTH_INTERVAL,
        # With Envoy's default, a minute, the next request would come long before Envoy notices a lost picker.
        no_traffic_interval=_HEALTH_INTERVAL,
        timeout=_HEALTH_TIMEOUT,
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(service_name=_EXT_PROC_SERVICE),
    )


def _connect_failures() -> OutlierDetection:
    """Return a rule that marks a picker unhealthy as soon as it refuses connections, until it passes a check."""
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
        enforcing_consecutive_local_origin_failure=100,
        max_ejection_percent=100,
        interval=_HEALTH_INTERVAL,
        base_ejection_time=_EJECTION_TIME,
        max_ejection_time=_EJECTION_TIME,
    )


def _policy(name: str, config: LeastRequest | Random | RoundRobin | OverrideHost) -> LoadBalancingPolicy:
    extension = TypedExtensionConfig(name=f"envoy.load_balancing_policies.{name}", typed_config=Any.pack(config))
    return LoadBalancingPolicy(policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension)])


BALANCING = {
    "round-robin": _policy("round_robin", RoundRobin()),
    "random": _policy("random", Random()),
    "p2c": _policy("least_request", LeastRequest(choice_count=2)),
    "least-requests": _policy("least_request", LeastRequest(selection_method=LeastRequestSelectionMethod.FULL_SCAN)),
}
"""Envoy's own load-balancing policies, by their names in the evaluation."""
