"""Model servers that act as a request's `x-act` header says, and record every request as received."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import h11

LARGE = bytes(range(256)) * 40_960
METRICS = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:gpu_cache_usage_perc 0\n"
ANSWER = json.dumps({"choices": [{"text": "hi"}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}).encode()
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"token"}}]}\n\n'
LAST_EVENTS = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
EVENTS = EVENT * 3 + LAST_EVENTS


@dataclass
class Received:
    """A request as the backend received it. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def act(self) -> str:
        return self.headers.get("x-act", "json").partition("=")[0]

    @property
    def argument(self) -> str:
        return self.headers.get("x-act", "").partition("=")[2]


class Connection:
    """The server's side of one HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer
        self.state = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)

    async def receive(self) -> Received | None:
        """Return the next request, or None after the last one. Don't read its body if it asks for an early answer."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        request = Received(head.method.decode(), head.target.decode(), _texts(head.headers))
        if request.act == "early":
            return request
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
        if isinstance(event, h11.EndOfMessage):
            request.trailers = _texts(event.headers)
        request.body = bytes(body)
        return request

    async def send(self, event: h11.Event) -> None:
        self._writer.write(self.state.send(event) or b"")
        await self._writer.drain()

    async def answer(
        self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = (), kind: str = "application/json"
    ) -> None:
        length = ("content-length", str(len(body)))
        await self.send(h11.Response(status_code=status, headers=[("content-type", kind), length, *headers]))
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def begin_stream(self, kind: str = "text/event-stream") -> None:
        headers = [("content-type", kind), ("transfer-encoding", "chunked")]
        await self.send(h11.Response(status_code=200, headers=headers))

    async def send_until_close(self, body: bytes) -> None:
        """Begin a stream whose end is that of the connection. h11 would send it in chunks."""
        self._writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body)
        await self._writer.drain()

    def cut(self) -> None:
        self._writer.transport.abort()

    async def _event(self) -> object:
        while (event := self.state.next_event()) is h11.NEED_DATA:
            if self.state.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.state.receive_data(await self.reader.read(1 << 20))
        return event


@dataclass(eq=False)
class Backend:
    """A model server. `received` holds all requests except those for metrics, in the order of their last byte.

    `active` counts the requests that are not answered yet.
    """

    name: str
    host: str = "127.0.0.1"
    received: list[Received] = field(default_factory=list)
    port: int = 0
    active: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen on a free port, or after a stop on the same port again."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=1 << 20, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        connection = Connection(reader, writer)
        try:
            with suppress(OSError, h11.ProtocolError):
                while await self._answer_next(connection):
                    connection.state.start_next_cycle()
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer_next(self, connection: Connection) -> bool:
        request = await connection.receive()
        if request is None:
            return False
        if request.path == "/metrics":
            await connection.answer(200, METRICS, kind="text/plain")
            return True
        self.received.append(request)
        self.active += 1
        try:
            await ACTS[request.act](connection, self, request)
        finally:
            self.active -= 1
        return connection.state.our_state is h11.DONE


Act = Callable[[Connection, Backend, Received], Awaitable[None]]


async def _json(connection: Connection, backend: Backend, request: Received) -> None:
    echoed = [("x-request-id", request.headers.get("x-request-id", "")), ("x-served-by", backend.name)]
    await connection.answer(200, ANSWER, echoed)


async def _status(connection: Connection, backend: Backend, request: Received) -> None:
    await connection.answer(int(request.argument), b'{"error": "as asked"}')


async def _empty(connection: Connection, backend: Backend, request: Received) -> None:
    await connection.answer(200, b"")


async def _head(connection: Connection, backend: Backend, request: Received) -> None:
    await connection.send(h11.Response(status_code=200, headers=[("content-length", "1234")]))
    await connection.send(h11.EndOfMessage())


async def _large(connection: Connection, backend: Backend, request: Received) -> None:
    await connection.answer(200, LARGE, kind=request.argument or "application/json")


async def _events(connection: Connection, backend: Backend, request: Received) -> None:
    """Send events in pieces of equal size, regardless of their borders. The argument is `bytes,pause in ms`."""
    await connection.begin_stream()
    step_bytes, _, pause_ms = request.argument.partition(",")
    step = int(step_bytes or len(EVENT))
    for start in range(0, len(EVENTS), step):
        await connection.send(h11.Data(data=EVENTS[start : start + step]))
        await asyncio.sleep(int(pause_ms or 0) / 1000)
    await connection.send(h11.EndOfMessage())


async def _trailers(connection: Connection, backend: Backend, request: Received) -> None:
    await connection.begin_stream(request.argument or "text/event-stream")
    await connection.send(h11.Data(data=EVENTS))
    await connection.send(h11.EndOfMessage(headers=[("x-checksum", "abc")]))


async def _silent(connection: Connection, backend: Backend, request: Received) -> None:
    """Send nothing until the client has gone. An argument names the one backend that is silent."""
    if request.argument not in ("", backend.name):
        return await _events(connection, backend, Received("", "", {}))
    await connection.reader.read()


async def _broken(connection: Connection, backend: Backend, request: Received) -> None:
    """Fail at once. The argument names the one backend that is broken."""
    if request.argument != backend.name:
        return await _events(connection, backend, Received("", "", {}))
    await connection.answer(500, b'{"error": "out of order"}')


async def _half(connection: Connection, backend: Backend, request: Received) -> None:
    """End the stream after an event, by the end of the connection. The argument names the one backend that does."""
    if request.argument != backend.name:
        return await _events(connection, backend, Received("", "", {}))
    await connection.send_until_close(EVENT)


async def _early(connection: Connection, backend: Backend, request: Received) -> None:
    """Answer before reading the body, and let the client end the connection."""
    await connection.answer(int(request.argument), b"", [("connection", "close")])
    await connection.reader.read()


async def _gated(connection: Connection, backend: Backend, request: Received) -> None:
    """Answer when the gate opens."""
    await backend.gate.wait()
    await _json(connection, backend, request)


async def _endless(connection: Connection, backend: Backend, request: Received) -> None:
    """Send events until the client has gone."""
    await connection.begin_stream()
    while not connection.reader.at_eof():
        await connection.send(h11.Data(data=EVENT))
        await asyncio.sleep(0.01)


async def _cut(connection: Connection, backend: Backend, request: Received) -> None:
    """Reset the connection before the answer or in the middle of it."""
    if request.argument == "amid":
        await connection.begin_stream()
        await connection.send(h11.Data(data=EVENT))
        await asyncio.sleep(0.02)
    connection.cut()


ACTS: dict[str, Act] = {
    "json": _json,
    "status": _status,
    "empty": _empty,
    "head": _head,
    "large": _large,
    "events": _events,
    "trailers": _trailers,
    "early": _early,
    "gated": _gated,
    "silent": _silent,
    "broken": _broken,
    "half": _half,
    "endless": _endless,
    "cut": _cut,
}


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers}
