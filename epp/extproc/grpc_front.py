"""The exchange served by grpcio: bytes pass through unparsed, so that only the exchange knows the messages."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from epp.config import Config
from epp.exceptions import ConfigError
from epp.extproc.exchange import Exchange
from epp.tls import server_credentials

logger = logging.getLogger("headroom.epp.extproc")

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
# The name that the chart's probes ask for.
HEALTH_SERVICE = "inference-extension"
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0))


async def start(config: Config, new_exchange: Callable[[], Exchange]) -> list[grpc.aio.Server]:
    """Serves ext_proc, and health on a port of its own and, if wanted, on the same one. ConfigError on a taken port."""
    checks = health.aio.HealthServicer()
    for service in ("", HEALTH_SERVICE, SERVICE):
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    extproc, healthy = grpc.aio.server(options=_OPTIONS), grpc.aio.server(options=_OPTIONS)
    extproc.add_generic_rpc_handlers((_handler(new_exchange),))
    if config.health_checking:
        health_pb2_grpc.add_HealthServicer_to_server(checks, extproc)
    health_pb2_grpc.add_HealthServicer_to_server(checks, healthy)
    credentials = server_credentials(config.cert_path) if config.secure_serving else None
    _bind(extproc, f"{config.host}:{config.grpc_port}", credentials)
    _bind(healthy, f"{config.host}:{config.grpc_health_port}", None)
    for server in (extproc, healthy):
        await server.start()
    return [extproc, healthy]


def _handler(new_exchange: Callable[[], Exchange]) -> grpc.GenericRpcHandler:
    """The gRPC service, with one exchange a stream."""

    async def process(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        exchange = new_exchange()
        try:
            async for message in requests:
                answers = exchange.receive(message)
                for answer in answers if isinstance(answers, list) else await answers:
                    yield answer
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an ext_proc message: {error}")
        finally:
            exchange.close()

    method = grpc.stream_stream_rpc_method_handler(process)
    return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
    try:
        if credentials:
            server.add_secure_port(address, credentials)
        else:
            server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"can't listen on {address}: is the port taken?") from error
