"""Clients of a gateway: HTTP/1.1 with aiohttp, and HTTP/2 with h2, which exposes frames, trailers and resets."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import h2.connection
import h2.events
from h2.config import H2Configuration

Body = bytes | Iterable[bytes]


@dataclass
class Answer:
    """A response. Header names are in lower case. `reset` is set if the stream broke before its end."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: bool = False


@dataclass
class _Stream:
    answer: Answer = field(default_factory=Answer)
    body: bytearray = field(default_factory=bytearray)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def end(self, *, reset: bool) -> None:
        self.is_over, self.answer.reset = True, reset
        self.answer.body = bytes(self.body)
        self.changed.set()


async def over_http1(
    url: str, path: str, *, method: str = "POST", headers: Mapping[str, str] | None = None, body: Body = b""
) -> Answer:
    """Send one request over a new connection. A body in pieces is sent chunked."""
    data = io.BytesIO(body) if isinstance(body, bytes) else _pieces(body)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        answer = Answer()
        try:
            async with session.request(method, url + path, data=data if body else None, headers=headers) as response:
                answer.status = response.status
                answer.headers = {name.lower(): value for name, value in response.headers.items()}
                answer.body = await response.read()
        except aiohttp.ClientError:
            answer.reset = True
        return answer


async def _pieces(body: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece
        await asyncio.sleep(0)


class Http2Connection:
    """One connection. Each concurrent caller of `send` gets its own stream."""

    def __init__(self, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._authority = authority
        self._reader, self._writer = reader, writer
        self._state = h2.connection.H2Connection(H2Configuration(header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._window = asyncio.Condition()
        self._state.initiate_connection()
        self._flush()

    async def send(
        self,
        path: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        trailers: Mapping[str, str] | None = None,
        abort_when: Callable[[Answer], bool] = lambda answer: False,
    ) -> Answer:
        """Send a request and wait for the end of its answer. Reset the stream as soon as `abort_when` is true."""
        state, number = self._state, self._state.get_next_available_stream_id()
        stream = self._streams[number] = _Stream()
        pieces = [body] if isinstance(body, bytes) else list(body)
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", self._authority)]
        is_bare = not any(pieces) and not trailers
        state.send_headers(number, [*pseudo, *(headers or {}).items()], end_stream=is_bare)
        self._flush()
        if not is_bare:
            await self._send_body(number, stream, pieces, trailers)
        while not stream.is_over:
            if abort_when(stream.answer):
                state.reset_stream(number)
                self._flush()
                break
            await stream.changed.wait()
            stream.changed.clear()
        del self._streams[number]
        return stream.answer

    async def run(self) -> None:
        """Handle incoming data until the connection ends."""
        while data := await self._reader.read(1 << 16):
            for event in self._state.receive_data(data):
                self._take(event)
            self._flush()
            async with self._window:
                self._window.notify_all()
        for stream in self._streams.values():
            stream.end(reset=True)

    async def _send_body(
        self, number: int, stream: _Stream, pieces: list[bytes], trailers: Mapping[str, str] | None
    ) -> None:
        for index, piece in enumerate(pieces, start=1):
            await self._send_piece(number, stream, piece, is_last=index == len(pieces) and not trailers)
        if trailers and not stream.is_over:
            self._state.send_headers(number, list(trailers.items()), end_stream=True)
            self._flush()

    async def _send_piece(self, number: int, stream: _Stream, piece: bytes, *, is_last: bool) -> None:
        start, end = 0, -1
        while end < len(piece) and not stream.is_over:
            end = min(start + self._room(number), len(piece))
            if end > start or not piece:
                self._state.send_data(number, piece[start:end], end_stream=is_last and end == len(piece))
                self._flush()
                start = end
            else:
                async with self._window:
                    await self._window.wait()

    def _room(self, number: int) -> int:
        return min(self._state.local_flow_control_window(number), self._state.max_outbound_frame_size)

    def _take(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.DataReceived):
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(number) if number else None
        if stream is None:
            return
        answer = stream.answer
        match event:
            case h2.events.ResponseReceived():
                texts = dict(_texts(event.headers))
                answer.status, answer.headers = int(texts.pop(":status")), texts
            case h2.events.DataReceived():
                stream.body += event.data
            case h2.events.TrailersReceived():
                answer.trailers = dict(_texts(event.headers))
            case h2.events.StreamEnded():
                stream.end(reset=False)
            case h2.events.StreamReset():
                stream.end(reset=True)
        stream.changed.set()

    def _flush(self) -> None:
        self._writer.write(self._state.data_to_send())


def _texts(headers: Iterable[tuple[str | bytes, str | bytes]] | None) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in headers or ()]


@asynccontextmanager
async def http2(port: int) -> AsyncIterator[Http2Connection]:
    """Open an HTTP/2 connection to 127.0.0.1 without TLS and without an upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = Http2Connection(f"127.0.0.1:{port}", reader, writer)
    running = asyncio.create_task(connection.run())
    try:
        yield connection
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await running
        writer.close()
