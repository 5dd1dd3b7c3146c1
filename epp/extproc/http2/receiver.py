"""Handles the frames that a client sends on an HTTP/2 connection (RFC 9113, sections 5 and 6)."""

from collections.abc import Callable
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget, Flood
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, Setting, StreamFault
from epp.extproc.http2.headers import MAX_BLOCK_BYTES, HeaderBlock, HeaderDecoder
from epp.extproc.http2.memory import Share
from epp.extproc.http2.outbox import Outbox
from epp.extproc.http2.stream import Stream
from epp.extproc.http2.streams import STREAM_WINDOW_BYTES, StreamTable

MAX_CONCURRENT_STREAMS: Final = 16_384
CONNECTION_WINDOW_BYTES: Final = 16 << 20
# The largest header block that is gathered of several frames.
_GATHERED_BYTES: Final = 2 * MAX_BLOCK_BYTES
# Smaller steps of a window, and smaller DATA frames on ended streams, cost as much work as large ones.
_SMALL_BYTES: Final = 1_024
# The price of more than that on an ended stream: a window full of it may be on its way.
_LATE_DATA_COST: Final = 1 / 16
# A new INITIAL_WINDOW_SIZE costs as much as one frame for so many open streams.
_STREAMS_PER_COST: Final = 100


class Receiver:
    """Handles the frames of one connection in order. A ConnectionFault ends the connection, a StreamFault one stream.

    `new_stream` makes the stream of a well-formed request. `on_settled` is called once the peer has sent its SETTINGS,
    `on_leaving` when the peer sends GOAWAY, and `on_pong` with the content of a PING that the peer answers.
    """

    def __init__(
        self,
        streams: StreamTable,
        outbox: Outbox,
        share: Share,
        budget: ControlFrameBudget,
        new_stream: Callable[[int, HeaderBlock], Stream],
        on_settled: Callable[[], None],
        on_leaving: Callable[[], None],
        on_pong: Callable[[bytes], bool],
    ) -> None:
        self._streams = streams
        self._open_streams = streams.open
        self._outbox = outbox
        self._share = share
        self._budget = budget
        self._new_stream = new_stream
        self._on_settled = on_settled
        self._on_leaving = on_leaving
        self._on_pong = on_pong
        self._headers = HeaderDecoder()
        # An unfinished header block: its stream, the flags of its first frame, and the bytes received so far.
        self._block: tuple[int, int, bytearray] | None = None
        self._window = CONNECTION_WINDOW_BYTES
        self._settings_acknowledged = False
        # True once the first SETTINGS have arrived.
        self.settled = False
        self.last_stream_id = 0
        self.newest_allowed_id = h2.LAST_STREAM_ID

    def data(self, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        """Handle a DATA frame. Its payload is buffer[start:end]."""
        if self._block or not self.settled:
            self._expect_order(h2.DATA, stream_id)
        size = end - start
        self._window -= size
        if self._window <= CONNECTION_WINDOW_BYTES // 2:
            self._widen()
        stream = self._open_streams.get(stream_id)
        if stream is None or stream.peer_done:
            self._unwanted_data(stream_id, size)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        if flags & h2.PADDED:
            start, end = h2.strip_padding(buffer, start, end)
        last = flags & h2.END_STREAM
        if start == end and not last:
            self._budget.spend(Flood.EMPTY_DATA)
        if stream.undeclared_bytes >= 0:
            stream.count(end - start, last=bool(last))
        if start < end:
            stream.data_received(buffer, start, end)
            if stream.held_bytes != stream.accounted_bytes:
                self._streams.account(stream)
        if last:
            self._end(stream)
        elif stream.receive_window <= STREAM_WINDOW_BYTES // 2:
            self._streams.credit(stream)

    def other(self, kind: int, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        """Handle a frame of another kind. Its payload is buffer[start:end]."""
        if self._block or not self.settled:
            self._expect_order(kind, stream_id)
        match kind:
            case h2.HEADERS:
                self._header_frame(flags, stream_id, buffer, start, end)
            case h2.CONTINUATION:
                self._continuation(flags, buffer[start:end])
            case h2.WINDOW_UPDATE:
                self._window_update(stream_id, buffer[start:end])
            case h2.RST_STREAM:
                self._rst_stream(stream_id, end - start)
            case h2.SETTINGS:
                self._settings(flags, stream_id, buffer[start:end])
            case h2.PING:
                self._ping(flags, stream_id, buffer[start:end])
            case h2.GOAWAY:
                _expect(stream_id == 0, "GOAWAY")
                self._budget.spend(Flood.GOAWAY)
                self._on_leaving()
            case h2.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client can't push")
            case h2.PRIORITY:
                self._priority(stream_id, buffer[start:end])
            case _:
                self._budget.spend(Flood.UNKNOWN_FRAME)

    def reset_faulty(self, fault: StreamFault) -> None:
        """End the stream of a fault."""
        self._budget.spend(Flood.FAULTY_FRAME)
        if stream := self._open_streams.get(fault.stream_id):
            self._streams.reset(stream, fault.code)
            stream.aborted()
        else:
            self._streams.remember_end(fault.stream_id)
            self._outbox.control(h2.rst_stream(fault.stream_id, fault.code))

    def _expect_order(self, kind: int, stream_id: int) -> None:
        if not self.settled and kind != h2.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block and (kind != h2.CONTINUATION or stream_id != self._block[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")

    def _widen(self) -> None:
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._outbox.control(h2.window_update(0, CONNECTION_WINDOW_BYTES - self._window))
        self._window = CONNECTION_WINDOW_BYTES

    def _unwanted_data(self, stream_id: int, size: int) -> None:
        if stream_id == 0 or stream_id > self.last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        if not self._streams.was_ended(stream_id):
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED)
        self._budget.spend(Flood.ENDED_STREAM, 1.0 if size < _SMALL_BYTES else _LATE_DATA_COST)

    def _header_frame(self, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & h2.PADDED:
            start, end = h2.strip_padding(buffer, start, end)
        if flags & h2.WITH_PRIORITY:
            if end - start < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame lacks its announced priority")
            _check_dependency(stream_id, buffer, start)
            start += 5
        if flags & h2.END_HEADERS:
            self._headers_complete(stream_id, flags, buffer[start:end])
        else:
            self._block = stream_id, flags, bytearray(buffer[start:end])
            self._share.change(end - start)

    def _continuation(self, flags: int, fragment: bytes) -> None:
        if not self._block:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without an open header block")
        self._budget.spend(Flood.CONTINUATION)
        stream_id, first_flags, block = self._block
        block += fragment
        if len(block) > _GATHERED_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {_GATHERED_BYTES} bytes")
        self._share.change(len(fragment))
        if flags & h2.END_HEADERS:
            self._block = None
            self._share.change(-len(block))
            self._headers_complete(stream_id, first_flags, bytes(block))

    def _headers_complete(self, stream_id: int, flags: int, block: bytes) -> None:
        if len(block) > _SMALL_BYTES:
            self._budget.spend(Flood.LARGE_HEADERS, len(block) / _SMALL_BYTES)
        if len(block) > MAX_BLOCK_BYTES and self._headers.is_stateless:
            self.last_stream_id = max(self.last_stream_id, stream_id)
            raise StreamFault(stream_id, ErrorCode.ENHANCE_YOUR_CALM)
        headers = self._headers.decode(block)
        if stream_id > self.last_stream_id:
            self._begin(stream_id, flags, headers)
        elif stream := self._open_streams.get(stream_id):
            self._trailers(stream, flags, headers)
        elif not self._streams.was_ended(stream_id):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a stream that has ended")
        else:
            self._budget.spend(Flood.ENDED_STREAM)

    def _begin(self, stream_id: int, flags: int, headers: HeaderBlock) -> None:
        self.last_stream_id = stream_id
        if stream_id > self.newest_allowed_id or len(self._open_streams) >= MAX_CONCURRENT_STREAMS:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM)
        if headers.fault:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
        stream = self._new_stream(stream_id, headers)
        stream.undeclared_bytes = headers.content_length
        if not self._streams.add(stream):
            return
        if flags & h2.END_STREAM:
            stream.peer_done = True
            stream.count(0, last=True)
        stream.opened()
        if flags & h2.END_STREAM and stream_id in self._open_streams:
            stream.peer_ended()

    def _trailers(self, stream: Stream, flags: int, headers: HeaderBlock) -> None:
        if stream.peer_done:
            raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED)
        if headers.trailers_fault or not flags & h2.END_STREAM:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.count(0, last=True)
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        stream.peer_done = True
        # The last data may have made the stream end itself.
        if stream.id in self._open_streams:
            stream.peer_ended()

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        _expect(len(payload) == 4, "WINDOW_UPDATE", ErrorCode.FRAME_SIZE_ERROR)
        increment = h2.uint31(payload, 0)
        if stream_id == 0:
            self._outbox.widen(increment)
        elif stream := self._open_streams.get(stream_id):
            self._outbox.widen_stream(stream, increment)
        else:
            self._expect_known(stream_id)
            self._budget.spend(Flood.ENDED_STREAM)
        if increment < _SMALL_BYTES:
            self._budget.spend(Flood.WINDOW_UPDATE)

    def _rst_stream(self, stream_id: int, size: int) -> None:
        _expect(size == 4, "RST_STREAM", ErrorCode.FRAME_SIZE_ERROR)
        self._expect_known(stream_id)
        # Gateways often reset streams that carried requests, which restore the budget. A flood carries none.
        self._budget.spend(Flood.RST_STREAM)
        if stream := self._open_streams.get(stream_id):
            self._streams.abort(stream)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect(stream_id == 0, "SETTINGS")
        if flags & h2.ACK:
            _expect(not payload, "SETTINGS", ErrorCode.FRAME_SIZE_ERROR)
            if self._settings_acknowledged:
                self._budget.spend(Flood.SETTINGS)
            self._settings_acknowledged = True
            self._headers.forbid_table()
            return
        if not self.settled:
            self.settled = True
            self._on_settled()
        settings = h2.read_settings(payload)
        self._budget.spend(Flood.SETTINGS, max(1, len(settings)))
        for identifier, value in settings:
            if identifier == Setting.MAX_FRAME_SIZE:
                self._outbox.limit_frames(value)
        if sizes := [value for identifier, value in settings if identifier == Setting.INITIAL_WINDOW_SIZE]:
            self._budget.spend(Flood.SETTINGS, len(self._open_streams) / _STREAMS_PER_COST)
            self._outbox.resize_windows(sizes, self._open_streams.values())
        self._outbox.control(h2.frame(h2.SETTINGS, h2.ACK, 0, b""))

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect(stream_id == 0, "PING")
        _expect(len(payload) == 8, "PING", ErrorCode.FRAME_SIZE_ERROR)
        if flags & h2.ACK and self._on_pong(payload):
            return
        self._budget.spend(Flood.PING)
        if not flags & h2.ACK:
            self._outbox.control(h2.frame(h2.PING, h2.ACK, 0, payload))

    def _priority(self, stream_id: int, payload: bytes) -> None:
        _expect(stream_id != 0, "PRIORITY")
        self._budget.spend(Flood.PRIORITY)
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        _check_dependency(stream_id, payload, 0)

    def _expect_known(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id > self.last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame for a stream that was never opened")


def _check_dependency(stream_id: int, buffer: bytes, start: int) -> None:
    if h2.uint31(buffer, start) == stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")


def _expect(condition: bool, kind: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
    if not condition:
        raise ConnectionFault(code, f"a malformed {kind} frame")
