"""A client of a connection in memory. It sends any frames, and reads the frames that come back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from struct import pack
from typing import Any

from hpack import Decoder

from epp.extproc.front import PATH
from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import Flood
from epp.extproc.http2.connection import Connection
from epp.extproc.http2.grpc import new_stream
from epp.extproc.http2.headers import write_headers
from epp.extproc.http2.memory import Memory
from epp.extproc.http2.rota import Rota
from epp.extproc.rpc import Services
from tests.epp.extproc.exchanges import Book

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
REQUEST_BLOCK = write_headers(REQUEST)


class ServerWire(asyncio.Transport):
    """Keeps the bytes that are written. With `slow`, no byte leaves its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.slow = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.slow else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@dataclass
class Peer:
    """A client of a server's connection. Frames that come back are (type, flags, stream, payload)."""

    book: Book = field(default_factory=Book)
    wire: ServerWire = field(default_factory=ServerWire)
    max_message_bytes: int = 64 << 20
    memory: Memory = field(default_factory=lambda: Memory(512 << 20))
    rota: Rota = field(default_factory=Rota)
    floods: list[Flood] = field(default_factory=list)

    def __post_init__(self) -> None:
        services = Services(exchanges={PATH: self.book.new_exchange}, max_message_bytes=self.max_message_bytes)
        self.connection = Connection(
            partial(new_stream, services, set()),
            self.memory,
            self.rota,
            on_made=lambda _: None,
            on_lost=lambda _: None,
            on_flood=lambda kind, _: self.floods.append(kind),
        )
        self.connection.connection_made(self.wire)

    def send(self, *frames: bytes) -> list[tuple[int, int, int, bytes]]:
        return self.send_bytes(b"".join(frames))

    def send_bytes(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        self.receive(data)
        return self.take()

    def receive(self, data: bytes) -> None:
        """Have the server read and handle all of `data`. What it writes stays on the wire."""
        self.connection.data_received(data)
        while self.connection.turns.unfinished and not self.wire.closed:
            self.connection.turns.take()

    def greet(self, **settings: int) -> None:
        """Send the preface and settings by name. Drop the answer."""
        values = {h2.Setting[name.upper()]: value for name, value in settings.items()}
        self.send(h2.PREFACE, h2.settings_frame(values), h2.frame(h2.SETTINGS, h2.ACK, 0, b""))

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames that have come back since the last call."""
        data, self.wire.written = bytes(self.wire.written), bytearray()
        return read_all(data)

    def lose(self) -> None:
        self.connection.connection_lost(None)


def read_all(data: bytes) -> list[tuple[int, int, int, bytes]]:
    frames = []
    while data:
        size = int.from_bytes(data[:3], "big")
        frames.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return frames


def request(stream_id: int, *messages: bytes, end: bool = True) -> bytes:
    """Return a whole stream: headers, and all messages in as few frames as possible."""
    data = b"".join(grpc_message(message) for message in messages)
    starts = range(0, max(1, len(data)), h2.MAX_FRAME_BYTES)
    pieces = [h2.frame(h2.DATA, 0, stream_id, data[start : start + h2.MAX_FRAME_BYTES]) for start in starts[:-1]]
    last = h2.frame(h2.DATA, h2.END_STREAM if end else 0, stream_id, data[starts[-1] :])
    return b"".join([open_stream(stream_id), *pieces, last])


def open_stream(stream_id: int, block: bytes = REQUEST_BLOCK, flags: int = h2.END_HEADERS) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream_id, block)


def grpc_message(message: bytes) -> bytes:
    return pack(">BI", 0, len(message)) + message


def answers(frames: Sequence[tuple[int, int, int, bytes]], stream_id: int = 1) -> list[bytes]:
    """Return the messages that came on a stream."""
    data = b"".join(payload for kind, _, stream, payload in frames if (kind, stream) == (h2.DATA, stream_id))
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(data[5 : 5 + size])
        data = data[5 + size :]
    return found


def trailers(frames: Sequence[tuple[int, int, int, bytes]], stream_id: int = 1) -> dict[str, str]:
    """Return the headers that ended a stream."""
    (block,) = [
        payload
        for kind, flags, stream, payload in frames
        if (kind, stream) == (h2.HEADERS, stream_id) and flags & h2.END_STREAM
    ]
    return {str(name): str(value) for name, value in Decoder().decode(block)}


def fault(frames: Sequence[tuple[int, int, int, bytes]]) -> tuple[str, h2.ErrorCode] | None:
    """Return "stream" or "connection", whichever the last frame ends, and its error code. None if it ends neither."""
    kind, _, _, payload = frames[-1]
    if kind == h2.GOAWAY:
        return "connection", h2.ErrorCode(int.from_bytes(payload[4:8], "big"))
    return ("stream", h2.ErrorCode(int.from_bytes(payload, "big"))) if kind == h2.RST_STREAM else None


def shared_memory(limit_bytes: int) -> tuple[Memory, Peer]:
    """Return the memory of a server, and a peer with large windows that uses it."""
    memory = Memory(limit_bytes)
    peer = Peer(memory=memory)
    peer.greet(initial_window_size=h2.LARGEST_WINDOW_BYTES)
    peer.send(h2.window_update(0, 1 << 30))
    return memory, peer


def resized(size: int) -> list[bytes]:
    return [h2.settings_frame({h2.Setting.INITIAL_WINDOW_SIZE: size})]
