"""A gRPC server by this package's own HTTP/2, which costs a fraction of a general server's time per request."""

import asyncio
import functools
import socket
import ssl
from typing import Any, Final

from epp.extproc.http2.acceptor import Acceptor
from epp.extproc.http2.budget import Flood
from epp.extproc.http2.connection import Connection
from epp.extproc.http2.floods import FloodReport
from epp.extproc.http2.grpc import new_stream
from epp.extproc.http2.memory import Memory
from epp.extproc.http2.rota import Rota
from epp.extproc.rpc import Services
from epp.extproc.tls import Certificates
from serving import listening
from serving.listening import Address

# Refused clients that are told why, and may take a second to close. More are cut off at once.
_TOLD_AT_ONCE: Final = 100
# Detect a vanished peer after one minute (30 + 3 * 10 s), and end its streams. Connections inherit these options.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Http2Server:
    """A server of one port, with its connections."""

    def __init__(self, services: Services) -> None:
        # Answers that are still being computed, including those of ended streams.
        self._tasks: set[asyncio.Future[Any]] = set()
        self._new_stream = functools.partial(new_stream, services, self._tasks)
        self._connections: set[Connection] = set()
        # Those of them that are refused, until they have closed.
        self._refused: set[Connection] = set()
        self._max_connections = services.max_connections
        self._memory = Memory(services.max_buffered_bytes)
        self._floods = FloodReport(services.count_flood)
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = 0

    def start(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        memory, rota, floods = self._memory, Rota(), self._floods
        self._acceptor = Acceptor(
            listener,
            tls,
            lambda: Connection(self._new_stream, memory, rota, self._connected, self._lost, floods.add),
            count_room=lambda: self._max_connections + _TOLD_AT_ONCE - len(self._connections),
            on_refused=functools.partial(floods.add, Flood.CONNECTIONS),
        )
        self.port = listener.getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        """Refuse new streams and let open ones end within `grace_s` seconds. Return when all are closed."""
        self._stopping = True
        self._acceptor.close()
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._idle.wait()
        await self._acceptor.end_handshakes()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._idle.clear()
        if self._stopping:
            connection.drain()
        elif len(self._connections) - len(self._refused) > self._max_connections:
            connection.refuse(says_why=len(self._refused) < _TOLD_AT_ONCE)
            self._refused.add(connection)

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._refused.discard(connection)
        if not self._connections:
            self._idle.set()


async def listen(address: Address, services: Services, certificates: Certificates | None) -> Http2Server:
    """Start serving. Raise StartError when the port is taken."""
    server = Http2Server(services)
    server.start(_bind(address), certificates.context if certificates else None)
    return server


def _bind(address: Address) -> socket.socket:
    listener = listening.listen(address)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        # Not every system has all of these options.
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener
