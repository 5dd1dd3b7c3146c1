"""Reads HTTP/2 frames (RFC 9113, sections 4 and 6) from a byte stream in pieces of any size, and writes them."""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The size that every HTTP/2 endpoint accepts, and the limit for our peers: small enough to interleave streams.
MAX_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = (1 << 24) - 1
DEFAULT_WINDOW_BYTES: Final = 65_535
LARGEST_WINDOW_BYTES: Final = (1 << 31) - 1
LAST_STREAM_ID: Final = (1 << 31) - 1

# Frame types. Plain integers, because they are compared for every frame.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

HEADER_BYTES: Final = 9
_HEADER: Final = Struct(">IBI")
_UINT32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")

# Type, flags, stream id, buffer, start, end. The payload is buffer[start:end], so that reading copies nothing.
Frame = tuple[int, int, int, bytes, int, int]


class ErrorCode(IntEnum):
    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):  # noqa: N818
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):  # noqa: N818
    """The peer broke the protocol in a way that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(f"stream {stream_id}: {code.name}")
        self.stream_id = stream_id
        self.code = code


class FrameReader:
    """Splits the bytes of a client into frames, after the connection's preface."""

    __slots__ = ("_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes. Raise ConnectionFault for a wrong preface or too large a frame."""
        buffer = self._rest + data if self._rest else data
        if not self._started and not self._preface_complete(buffer):
            self._rest = buffer
            return
        position, size = 0 if self._started else len(PREFACE), len(buffer)
        self._started = True
        unpack = _HEADER.unpack_from
        while size - position >= HEADER_BYTES:
            length_and_type, flags, stream_id = unpack(buffer, position)
            start = position + HEADER_BYTES
            end = start + (length_and_type >> 8)
            if end - start > MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {end - start} bytes")
            if end > size:
                break
            position = end
            yield length_and_type & 0xFF, flags, stream_id & LAST_STREAM_ID, buffer, start, end
        self._rest = buffer[position:]

    def _preface_complete(self, buffer: bytes) -> bool:
        if not PREFACE.startswith(buffer[: len(PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client with prior knowledge")
        return len(buffer) >= len(PREFACE)


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    return _HEADER.pack(length << 8 | kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings_frame(values: Mapping[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _UINT32.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _UINT32.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _UINT32.pack(last_stream_id) + _UINT32.pack(code) + text.encode())


def uint31(buffer: bytes, start: int) -> int:
    """Return the number at `start`, without the bit that is reserved in stream ids and window increments."""
    value: int = _UINT32.unpack_from(buffer, start)[0]
    return value & LAST_STREAM_ID


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return pairs of identifier and value. Raise ConnectionFault for a value out of range (section 6.5.2)."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame of odd length")
    settings: list[tuple[int, int]] = list(_SETTING.iter_unpack(payload))
    for identifier, value in settings:
        if identifier == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if identifier == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW_BYTES:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        if identifier == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
    return settings


def strip_padding(buffer: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the start and end of the payload of a padded DATA or HEADERS frame without its padding."""
    if start == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame lacks the length of its padding")
    padding = buffer[start]
    if padding > end - start - 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return start + 1, end - padding
