"""Creates grpcio's servers: their options and their port. Not every server's image has grpcio."""

from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio

from serving.exceptions import StartError
from serving.grpc_credentials import Certificates, grpc_credentials
from serving.listening import Address

# Time that a client has to shake hands. grpcio's own limit is two minutes.
_HANDSHAKE_MS: Final = 10_000


def listen(
    address: Address,
    handler: grpc.GenericRpcHandler,
    certificates: Certificates | None,
    max_message_bytes: int,
    client_ca: bytes | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    most_calls: int | None = None,
    most_connections: int | None = None,
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is bound but not started, and its port; raise StartError if the port is taken.

    With certificates it serves over TLS, and with `client_ca` (PEM) only to clients of these CAs. `max_message_bytes`
    limits requests; answers have no limit. More than `most_calls` calls at the same time are refused, and so are more
    than `most_connections`, with those in their handshake.
    """
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(address.is_shared)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    ]
    if most_connections is not None:
        options.append(("grpc.max_allowed_incoming_connections", most_connections))
    server = grpc.aio.server(options=options, interceptors=interceptors, maximum_concurrent_rpcs=most_calls)
    server.add_generic_rpc_handlers((handler,))
    try:
        if certificates:
            return server, server.add_secure_port(str(address), grpc_credentials(certificates, client_ca))
        return server, server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise StartError(f"can't listen on {address} for gRPC; choose another --grpc-port") from error
