"""Reads and checks the HTTP/2 header blocks of requests, and writes those of answers.

The settings tell peers to keep no dynamic table (SETTINGS_HEADER_TABLE_SIZE 0). Without a table, equal blocks mean
equal headers, so that a repeated block is decoded once. A gateway's blocks are all alike. A peer that keeps its table
anyway is served as well. Answers use no dynamic table, and are encoded in advance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpack import Decoder, HPACKError

from epp.extproc.http2.frames import ConnectionFault, ErrorCode

# gRPC's own servers have this limit by default. A block of this size takes up to a millisecond to decode.
MAX_BLOCK_BYTES: Final = 8_192
# More than Huffman's code makes of such a block: only a bomb of references to tables exceeds it.
_DECODED_BYTES: Final = 2 * MAX_BLOCK_BYTES
_REMEMBERED_BLOCKS: Final = 32
_REMEMBERED_BYTES: Final = 1_024
_PSEUDO: Final = frozenset((":method", ":scheme", ":authority", ":path"))
# Headers of an HTTP/1 connection, which HTTP/2 forbids (RFC 9113, 8.2.2).
_CONNECTION_SPECIFIC: Final = frozenset(
    ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")
)
# The first byte of a block that resizes the dynamic table: 001 in the top three bits (RFC 7541, 6.3).
_RESIZE: Final = 0x20
_RESIZE_MASK: Final = 0xE0
# Units of grpc-timeout, in seconds: hours, minutes, seconds, milliseconds, microseconds and nanoseconds.
_UNITS_S: Final = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT_DIGITS: Final = 8
_MAX_LENGTH_IN_PREFIX: Final = 126


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    """The fields of a header block that this server uses.

    `fault` says why the block is malformed as a request, `trailers_fault` as trailers. Empty: it is well-formed.
    `content_length` is -1 if the peer did not send it, `timeout_s` is None without a well-formed grpc-timeout.
    """

    method: str = ""
    path: str = ""
    content_type: str = ""
    content_length: int = -1
    timeout_s: float | None = None
    traceparent: str = ""
    fault: str = ""
    trailers_fault: str = ""


class HeaderDecoder:
    """Decodes the header blocks of one connection in order."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=_DECODED_BYTES)
        self._known: dict[bytes, HeaderBlock] = {}
        self._table_forbidden = False

    @property
    def is_stateless(self) -> bool:
        """Tell whether a block may be left undecoded, since later ones don't depend on it."""
        return self._decoder.header_table_size == 0

    def forbid_table(self) -> None:
        """Note that the peer has acknowledged the setting that forbids a dynamic table."""
        self._table_forbidden = True

    def decode(self, block: bytes) -> HeaderBlock:
        """Decode a block. Raise ConnectionFault if that fails, because the peer's compression state is then lost."""
        stateless = self.is_stateless
        if stateless and (known := self._known.get(block)):
            return known
        if self._table_forbidden and block and block[0] & _RESIZE_MASK == _RESIZE:
            self._decoder.max_allowed_table_size = 0
        try:
            pairs = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"a header block can't be decoded: {error}") from error
        headers = read_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs)
        if stateless and self.is_stateless and len(block) <= _REMEMBERED_BYTES:
            if len(self._known) >= _REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        return headers


def read_headers(pairs: Iterable[tuple[str, str]]) -> HeaderBlock:
    """Return the used fields of the headers, and their faults (RFC 9113, 8.2 and 8.3)."""
    pseudo: dict[str, str] = {}
    regular: dict[str, str] = {}
    field_fault, pseudo_fault = "", ""
    for name, value in pairs:
        if name.startswith(":"):
            if name not in _PSEUDO or name in pseudo or regular:
                pseudo_fault = pseudo_fault or f"the pseudo-header {name} is unknown, repeated or late"
            pseudo[name] = value
            continue
        field_fault = field_fault or _field_fault(name, value)
        regular[name] = value
    if not pseudo_fault and not (pseudo.get(":method") and pseudo.get(":scheme") and pseudo.get(":path")):
        pseudo_fault = "one of :method, :scheme and :path is missing"
    length = regular.get("content-length", "")
    return HeaderBlock(
        method=pseudo.get(":method", ""),
        path=pseudo.get(":path", ""),
        content_type=regular.get("content-type", ""),
        content_length=int(length) if length.isascii() and length.isdigit() and len(length) < 19 else -1,
        timeout_s=_seconds(regular["grpc-timeout"]) if "grpc-timeout" in regular else None,
        traceparent=regular.get("traceparent", ""),
        fault=field_fault or pseudo_fault,
        trailers_fault=field_fault or ("trailers with a pseudo-header" if pseudo else ""),
    )


def _seconds(timeout: str) -> float | None:
    """Return the value of a grpc-timeout: up to eight digits and a unit."""
    digits, unit = timeout[:-1], _UNITS_S.get(timeout[-1:])
    if unit is None or not (digits.isascii() and digits.isdigit() and len(digits) <= _TIMEOUT_DIGITS):
        return None
    return int(digits) * unit


def _field_fault(name: str, value: str) -> str:
    if not name or name != name.lower():
        return f"the header name {name!r} is not in lower case"
    if name in _CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
        return f"the header {name} is forbidden in HTTP/2"
    return ""


def write_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a header block of literals without indexing (RFC 7541, 6.2.2), which changes no state at the peer."""
    return b"".join(b"\x00" + _string(name.encode()) + _string(value.encode()) for name, value in headers)


def _string(value: bytes) -> bytes:
    length = len(value)
    if length <= _MAX_LENGTH_IN_PREFIX:
        return bytes((length,)) + value
    prefix, length = bytearray((127,)), length - 127
    while length > 127:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + value
