"""The client's side of gRPC over HTTP/2 (RFC 9113), as cheap as possible in Python, so that the server is the limit.

The client handles the frames that a gRPC server sends. It respects the server's windows and opens its own widely.
"""

import asyncio
import struct
from collections.abc import Generator
from typing import cast

from hpack import Decoder, Encoder

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_LARGEST_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = 65_535
_LARGEST_STREAM = (1 << 31) - 1

Script = Generator[bytes, bytes, None]
"""One side of a call: it yields the bytes to send next, and is sent each received message."""


class CallFailedError(Exception):
    """The call failed; the text says why."""


def message(data: bytes) -> bytes:
    """Return an uncompressed gRPC message."""
    return struct.pack(">BI", 0, len(data)) + data


class _Call:
    __slots__ = ("done", "half_closed", "received", "script", "unsent", "window")

    def __init__(self, script: Script, window: int, done: "asyncio.Future[None]") -> None:
        self.script = script
        self.window = window
        self.done = done
        self.received = b""
        self.unsent = bytearray()
        self.half_closed = False


class Connection(asyncio.Protocol):
    """One connection with any number of concurrent calls to one method."""

    def __init__(self, authority: str, path: str) -> None:
        names = {":method": "POST", ":scheme": "http", ":path": path, ":authority": authority, "te": "trailers"}
        names |= {"content-type": "application/grpc", "user-agent": "bench"}
        self._request_headers = list(names.items())
        # Sends known headers as indices, as Envoy does. From the second call on, all headers are known.
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._known_blocks: dict[bytes, dict[str, str]] = {}
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._largest_frame = 16_384
        self._received = b""
        self._credit = 0
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Without a table for response headers, equal blocks mean equal headers, so each block is decoded only once.
        settings = {_HEADER_TABLE_SIZE: 0, _ENABLE_PUSH: 0, _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW}
        self._out.append(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings.items()))
        self._frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in list(self._calls):
            self._end(stream, f"connection lost: {exc or 'closed by the server'}")

    @property
    def is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def call(self, script: Script) -> "asyncio.Future[None]":
        """Start a call. Its future is done when the server ends the call with success; else it has CallFailedError.

        Cancelling the future resets the call.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream = self._next_stream
        if stream > _LARGEST_STREAM or not self._transport or self._transport.is_closing():
            done.set_exception(CallFailedError("the connection is closed"))
            return done
        self._next_stream += 2
        call = self._calls[stream] = _Call(script, self._stream_window, done)
        done.add_done_callback(lambda _: self._cancelled(stream) if done.cancelled() else None)
        self._frame(_HEADERS, _END_HEADERS, stream, self._encoder.encode(self._request_headers))
        self._print_line(stream, call, next(script))
        self._flush()
        return done

    def _cancelled(self, stream: int) -> None:
        if self._calls.pop(stream, None):
            self._frame(_RST_STREAM, 0, stream, struct.pack(">I", 8))
            self._flush()

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        at, size = 0, len(data)
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + 9 + length
            if end > size:
                break
            self._handle(data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end])
            at = end
        self._received = data[at:]
        if self._credit > _LARGEST_WINDOW >> 1:
            self._frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._credit))
            self._credit = 0
        self._flush()

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._credit += len(payload)
            self._data(stream, _strip_padding(payload, flags))
            if flags & _END_STREAM:
                self._end(stream, "ended without trailers")
        elif kind == _HEADERS:
            self._header_frame(stream, flags, _strip_padding(payload, flags)[5 if flags & _PRIORITY else 0 :])
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == _RST_STREAM:
            self._end(stream, f"reset by the server with error {int.from_bytes(payload, 'big')}")
        elif kind == _GOAWAY:
            last = int.from_bytes(payload[:4], "big")
            for refused in [other for other in self._calls if other > last]:
                self._end(refused, "refused by a server that is stopping")

    def _header_frame(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            self._end(stream, "response headers are larger than a frame, which this client doesn't support")
            return
        headers = self._headers(block)
        if flags & _END_STREAM:
            status = headers.get("grpc-status", "none")
            self._end(stream, "" if status == "0" else f"grpc-status {status}: {headers.get('grpc-message', '')}")

    def _data(self, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        data = call.received + payload if call.received else payload
        at = 0
        while len(data) - at >= 5:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            if end > len(data):
                break
            self._answer(stream, call, data[at + 5 : end])
            at = end
        call.received = data[at:]

    def _answer(self, stream: int, call: _Call, answer: bytes) -> None:
        if call.half_closed or call.done.done():
            return
        try:
            self._print_line(stream, call, call.script.send(answer))
        except StopIteration:
            call.half_closed = True
            if not call.unsent:
                self._frame(_DATA, _END_STREAM, stream, b"")
        except CallFailedError as error:
            self._frame(_RST_STREAM, 0, stream, struct.pack(">I", 8))
            self._end(stream, str(error))

    def _print_line(self, stream: int, call: _Call, data: bytes) -> None:
        if data:
            call.unsent += data
            self._send_unsent(stream, call)

    def _send_unsent(self, stream: int, call: _Call) -> None:
        while call.unsent:
            size = min(len(call.unsent), self._window, call.window, self._largest_frame)
            if size <= 0:
                return
            self._frame(_DATA, 0, stream, bytes(call.unsent[:size]))
            del call.unsent[:size]
            self._window -= size
            call.window -= size
        if call.half_closed:
            self._frame(_DATA, _END_STREAM, stream, b"")

    def _widen(self, stream: int, by: int) -> None:
        if stream:
            if call := self._calls.get(stream):
                call.window += by
                if call.unsent:
                    self._send_unsent(stream, call)
            return
        self._window += by
        self._send_all_unsent()

    def _send_all_unsent(self) -> None:
        for stream, call in self._calls.items():
            if call.unsent:
                self._send_unsent(stream, call)

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_FRAME_SIZE:
                self._largest_frame = value
            elif name == _HEADER_TABLE_SIZE:
                self._encoder.header_table_size = min(value, self._encoder.header_table_size)
        self._frame(_SETTINGS, _ACK, 0, b"")
        self._send_all_unsent()

    def _headers(self, block: bytes) -> dict[str, str]:
        if block not in self._known_blocks:
            if len(self._known_blocks) > 1000:
                self._known_blocks.clear()
            self._known_blocks[block] = {str(name): str(value) for name, value in self._decoder.decode(block)}
        return self._known_blocks[block]

    def _end(self, stream: int, problem: str) -> None:
        call = self._calls.pop(stream, None)
        if call is None or call.done.done():
            return
        if problem or not call.half_closed:
            call.done.set_exception(CallFailedError(problem or "ended by the server too early"))
        else:
            call.done.set_result(None)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._out.append(len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big"))
        self._out.append(payload)

    def _flush(self) -> None:
        if self._out and self._transport:
            self._transport.write(b"".join(self._out))
            self._out.clear()


def _strip_padding(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
