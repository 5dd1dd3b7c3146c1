"""A gRPC server by grpcio. Bytes pass through unparsed, because only the exchange knows the messages."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from epp.exceptions import ConfigError
from epp.extproc.rpc import Method, RpcClient, RpcError, Services, StreamHandler
from epp.extproc.tls import Certificates
from serving import grpc_listening
from serving.listening import Address

logger = logging.getLogger("headroom.epp.extproc")

_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class GrpcioServer:
    """A grpcio server on one port."""

    def __init__(self, server: grpc.aio.Server, port: int, tasks: set[asyncio.Task[Any]]) -> None:
        self._server = server
        self._tasks = tasks
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Refuse new streams and let open ones end within `grace_s` seconds. Return when all are closed."""
        await self._server.stop(grace_s)
        # grpcio abandons a stream whose handler is waiting, and leaves that handler waiting.
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listen(address: Address, services: Services, certificates: Certificates | None) -> GrpcioServer:
    """Start serving. Raise StartError when the port is taken, ConfigError when TLS is restricted."""
    if certificates and not certificates.unrestricted:
        raise ConfigError("--tls-min-version and --tls-cipher-suites: grpcio can't restrict them, the http2 front can")
    tasks: set[asyncio.Task[Any]] = set()
    handlers = _Handlers(services, tasks)
    server, port = grpc_listening.listen(
        address,
        handlers,
        certificates,
        services.max_message_bytes,
        certificates.client_ca if certificates else None,
        most_connections=services.max_connections,
    )
    await server.start()
    return GrpcioServer(server, port, tasks)


@dataclass(frozen=True, eq=False)
class _AllClients:
    """Stands for every client: grpcio doesn't tell connections apart."""

    address: str = "a client of grpcio"


_ALL_CLIENTS = _AllClients()
# The traceparent of the present call's metadata. Methods get only the messages of a call.
_TRACEPARENT = ContextVar("traceparent", default="")


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    """Handlers of every method as a stream of bytes in and out. A unary method is the same on the wire."""

    def __init__(self, services: Services, tasks: set[asyncio.Task[Any]]) -> None:
        methods = {path: _exchanging(new, _ALL_CLIENTS) for path, new in services.exchanges.items()} | dict(
            services.methods
        )
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(_handler(method, tasks)) for path, method in methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


def _exchanging(new_exchange: Callable[[RpcClient], StreamHandler], client: RpcClient) -> Method:
    async def exchanged(requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        exchange = new_exchange(client)
        if traceparent := _TRACEPARENT.get():
            exchange.begin_within(traceparent)
        try:
            async for message in requests:
                answers = exchange.receive(message)
                for answer in answers if isinstance(answers, list) else await answers:
                    yield answer
                exchange.settle()
        finally:
            exchange.close()

    return exchanged


def _handler(
    method: Method, tasks: set[asyncio.Task[Any]]
) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    async def process(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if task := asyncio.current_task():
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        _TRACEPARENT.set(next((value for name, value in context.invocation_metadata() if name == "traceparent"), ""))
        try:
            async with aclosing(method(requests)) as answers:
                async for answer in answers:
                    yield answer
        except RpcError as error:
            await context.abort(_STATUSES[error.status], str(error))
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a message of this method: {error}")
        except Exception:
            logger.exception("a stream failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says why")

    return process
