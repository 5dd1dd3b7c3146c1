"""The server's side of an HTTP/2 connection (RFC 9113), as far as gRPC needs it.

The memory that a peer can occupy here is bounded by the windows, the number of streams, the size of a header block,
and a budget for frames that cause work and carry no request. The time that one peer's frames take from the event loop
at once is bounded too: the rest of what has arrived waits for the next turn, and reading pauses until then.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from time import monotonic
from typing import Final, cast

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget, Flood, FloodFault
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, Frame, FrameReader, Setting, StreamFault
from epp.extproc.http2.headers import MAX_BLOCK_BYTES, HeaderBlock, HeaderDecoder
from epp.extproc.http2.memory import STREAM_BYTES, Memory
from epp.extproc.http2.outbox import Outbox
from epp.extproc.http2.stream import Stream

logger = logging.getLogger("headroom.epp.http2")

MAX_CONCURRENT_STREAMS: Final = 16_384
STREAM_WINDOW_BYTES: Final = 1 << 20
CONNECTION_WINDOW_BYTES: Final = 16 << 20
# Streams ended by this side that are remembered: the peer may still send frames before it learns of the end.
_ENDED_STREAMS: Final = 1_024
# Time that one connection's frames may take from the event loop in one turn.
_TURN_S: Final = 0.002
# Smaller steps of a window, and smaller DATA frames on ended streams, cost as much work as large ones.
_SMALL_BYTES: Final = 1_024
# The price of more than that on an ended stream: a window full of it may be on its way.
_LATE_DATA_COST: Final = 1 / 16
# A new INITIAL_WINDOW_SIZE costs as much as one frame for so many open streams.
_STREAMS_PER_COST: Final = 100
# Time in which a new client must send the HTTP/2 preface and SETTINGS.
_PREFACE_S: Final = 10.0
# Time that a peer has to answer the PING, and to close its end, after GOAWAY.
_FAREWELL_S: Final = 1.0
_DRAIN_PING: Final = b"draining"
_PREFACE: Final = h2.settings_frame(
    {
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    }
) + h2.window_update(0, CONNECTION_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES)


class Connection(asyncio.Protocol):
    """One connection. `new_stream` makes the stream of a well-formed request.

    `on_made` and `on_lost` are called when the connection begins and ends, `on_flood` with the kind and
    the address of a peer that is cut off.
    """

    outbox: Outbox

    def __init__(
        self,
        new_stream: Callable[["Connection", int, HeaderBlock], Stream],
        memory: Memory,
        on_made: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        on_flood: Callable[[Flood, str], None],
    ) -> None:
        self._new_stream = new_stream
        self._memory = memory
        self._on_made = on_made
        self._on_lost = on_lost
        self._on_flood = on_flood
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._headers = HeaderDecoder()
        # An unfinished header block: its stream, the flags of its first frame, and the bytes received so far.
        self._block: tuple[int, int, bytearray] | None = None
        self._streams: dict[int, Stream] = {}
        # What the streams occupy, the streams with buffers in the order of their first byte, and those of them that
        # may not send more until there is room.
        self.held_bytes = 0
        self._buffering: OrderedDict[int, Stream] = OrderedDict()
        self._held_back: dict[int, Stream] = {}
        # In the order of their ends.
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._last_stream_id = 0
        self._newest_allowed_id = h2.LAST_STREAM_ID
        self._receive_window = CONNECTION_WINDOW_BYTES
        self._settled = False
        self._settings_acknowledged = False
        # Frames that have arrived and wait for the next turn, and streams with such messages.
        self._unread: Iterator[Frame] | None = None
        self._backlog: deque[Stream] = deque()
        # True while frames or messages wait for a turn. Reading pauses until none is left.
        self.unfinished = False
        self._turn_planned = False
        self._turn_end_s = 0.0
        self._draining = False
        # True once the peer or this side ends new streams: the connection closes with the last open stream.
        self._leaving = False
        self._closing = False
        self._is_lost = False
        self.control_budget = ControlFrameBudget()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(_PREFACE_S, self._transport.abort)
        self.outbox = Outbox(self._transport, self._answered)
        self.outbox.control(_PREFACE)
        self.outbox.flush()
        self._memory.add_connection(self)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        frames = self._reader.read(data)
        if self.unfinished:
            # Some transports still deliver what they have read when reading pauses.
            self._unread = chain(self._unread or (), frames)
        else:
            self._unread = frames
            self._turn()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = self._is_lost = True
        self._unread = None
        self._timer.cancel()
        self._abort_all()

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    def take_turn(self) -> None:
        """Go on with what has arrived before, and read on when nothing of it is left."""
        if not self._turn_planned or self._closing:
            return
        self._turn_planned = False
        self._turn_end_s = 0.0
        self._turn()
        if not self._turn_planned:
            self.unfinished = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # Called by streams, which use the outbox too.

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream from this side, without a call of its `aborted`."""
        self._drop(stream)
        self._remember_end(stream.id)
        self.outbox.control(h2.rst_stream(stream.id, code))

    def credit(self, stream: Stream) -> None:
        """Let the peer send more on a stream, if at least half of the stream's window is used up."""
        if stream.receive_window > STREAM_WINDOW_BYTES // 2 or stream.busy or stream.peer_done:
            return
        if stream.id in self._streams:
            if self._memory.is_tight and stream.accounted_bytes and stream is not next(iter(self._buffering.values())):
                self._held_back[stream.id] = stream
                self._memory.wait(self)
                return
            self.outbox.control(h2.window_update(stream.id, STREAM_WINDOW_BYTES - stream.receive_window))
            stream.receive_window = STREAM_WINDOW_BYTES

    def account(self, stream: Stream) -> None:
        """Take in what is kept for a stream. The stream may be reset if there is no room for it."""
        held = stream.held_bytes
        if held != stream.accounted_bytes and stream.id in self._streams:
            self._account(stream, held)

    def go_on_later(self, stream: Stream) -> None:
        """Call the stream's `go_on` in a later turn. Nothing more is read from the peer until then."""
        self._backlog.append(stream)
        self._plan_turn()

    def after_flush(self, callback: Callable[[], None]) -> None:
        """Call `callback` after this turn's answers are written, at the turn's end or by a planned flush."""
        self._loop.call_soon(callback)

    # Called by the memory.

    def reset_one(self) -> bool:
        """Reset the newest of the streams with buffers, because the older are nearer to their ends."""
        streams = self._buffering or self._streams
        if not streams:
            return False
        stream = next(reversed(streams.values()))
        self._on_flood(Flood.MEMORY, self._peer())
        self._remember_end(stream.id)
        self.outbox.control(h2.rst_stream(stream.id, ErrorCode.ENHANCE_YOUR_CALM))
        self._abort(stream)
        self.outbox.flush_soon()
        return True

    def open_windows(self) -> None:
        """Credit the streams that were held back."""
        held_back, self._held_back = self._held_back, {}
        for stream in held_back.values():
            self.credit(stream)
        self.outbox.flush_soon()

    # Called by the front.

    def drain(self) -> None:
        """Refuse new streams, let the open ones end, then close the connection (RFC 9113, 6.8)."""
        if self._closing or self._draining:
            return
        self._draining = True
        if not self._settled:
            self._close()
            return
        # Accept streams that are already on their way: the peer's answer to the PING comes after them.
        self.outbox.control(h2.goaway(h2.LAST_STREAM_ID, ErrorCode.NO_ERROR, "draining"))
        self.outbox.control(h2.frame(h2.PING, 0, 0, _DRAIN_PING))
        self._timer.cancel()
        self._timer = self._loop.call_later(_FAREWELL_S, self._take_no_more)
        self.outbox.flush()

    def abort(self) -> None:
        """End every stream and the connection."""
        for stream in list(self._streams.values()):
            self.outbox.control(h2.rst_stream(stream.id, ErrorCode.CANCEL))
            self._abort(stream)
        self._close()

    # Received frames.

    def _turn(self) -> None:
        """Handle what has arrived for a bounded time. Leave the rest to the next turn of the event loop."""
        try:
            unfinished = not self._closing and self._read()
        except FloodFault as fault:
            self._on_flood(fault.kind, self._peer())
            self._fail(fault.code, str(fault))
        except ConnectionFault as fault:
            logger.debug("closing a connection: %s", fault)
            self._fail(fault.code, str(fault))
        except Exception:
            logger.exception("closing a connection after an error of this server")
            self._fail(ErrorCode.INTERNAL_ERROR, "the server failed")
        else:
            if unfinished:
                self._plan_turn()
        self.outbox.flush()

    def _peer(self) -> str:
        address = self._transport.get_extra_info("peername")
        return ":".join(map(str, address[:2])) if isinstance(address, tuple) else "an unknown address"

    def _plan_turn(self) -> None:
        if self._turn_planned or self._closing:
            return
        self._turn_planned = True
        if not self.unfinished:
            self.unfinished = True
            self._transport.pause_reading()
        self._loop.call_soon(self.take_turn)

    def _read(self) -> bool:
        """Handle messages and frames that wait, and return True if some are left when the turn's time is over."""
        now = monotonic()
        # A transport may deliver several reads in one turn of the event loop. They share the time.
        if now > self._turn_end_s:
            self._turn_end_s = now + _TURN_S
        end = self._turn_end_s
        if self._backlog and not self._work_off(end):
            return True
        for kind, flags, stream_id, buffer, start, stop in self._unread or ():
            try:
                if kind == h2.DATA and self._settled and self._block is None:
                    self._data(flags, stream_id, buffer, start, stop)
                else:
                    self._other(kind, flags, stream_id, buffer, start, stop)
            except StreamFault as fault:
                self._stream_fault(fault)
            if self._closing:
                return False
            if monotonic() > end:
                return True
        self._unread = None
        return bool(self._backlog)

    def _work_off(self, end_s: float) -> bool:
        """Let each stream with waiting messages go on. Return False if the turn's time is over before."""
        for _ in range(len(self._backlog)):
            self._backlog.popleft().go_on()
            if monotonic() > end_s:
                return False
        return True

    def _data(self, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        size = end - start
        self._take_from_window(size)
        stream = self._streams.get(stream_id)
        if stream is None or stream.peer_done:
            self._unwanted_data(stream_id, size)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        start, end = h2.strip_padding(flags, buffer, start, end)
        last = flags & h2.END_STREAM
        if start == end and not last:
            self.control_budget.spend(Flood.EMPTY_DATA)
        stream.count(end - start, last=bool(last))
        stream.data_received(buffer, start, end)
        if stream.held_bytes != stream.accounted_bytes:
            self.account(stream)
        if last:
            self._peer_ended(stream)
        elif stream.receive_window <= STREAM_WINDOW_BYTES // 2:
            self.credit(stream)

    def _take_from_window(self, size: int) -> None:
        self._receive_window -= size
        if self._receive_window > CONNECTION_WINDOW_BYTES // 2:
            return
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self.outbox.control(h2.window_update(0, CONNECTION_WINDOW_BYTES - self._receive_window))
        self._receive_window = CONNECTION_WINDOW_BYTES

    def _unwanted_data(self, stream_id: int, size: int) -> None:
        if stream_id == 0 or stream_id > self._last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        if stream_id not in self._ended:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED)
        self.control_budget.spend(Flood.ENDED_STREAM, 1.0 if size < _SMALL_BYTES else _LATE_DATA_COST)

    def _other(self, kind: int, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        if not self._settled and kind != h2.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block and (kind != h2.CONTINUATION or stream_id != self._block[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
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
                self.control_budget.spend(Flood.GOAWAY)
                self._leaving = True
                self._close_when_idle()
            case h2.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client can't push")
            case h2.PRIORITY:
                self._priority(stream_id, buffer[start:end])
            case _:
                self.control_budget.spend(Flood.UNKNOWN_FRAME)

    def _header_frame(self, flags: int, stream_id: int, buffer: bytes, start: int, end: int) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        start, end = h2.strip_padding(flags, buffer, start, end)
        if flags & h2.WITH_PRIORITY:
            if end - start < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame lacks its announced priority")
            self._check_dependency(stream_id, buffer, start)
            start += 5
        if flags & h2.END_HEADERS:
            self._headers_complete(stream_id, flags, buffer[start:end])
        else:
            self._block = stream_id, flags, bytearray(buffer[start:end])

    def _continuation(self, flags: int, fragment: bytes) -> None:
        if not self._block:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without an open header block")
        self.control_budget.spend(Flood.CONTINUATION)
        stream_id, first_flags, block = self._block
        block += fragment
        if len(block) > MAX_BLOCK_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {MAX_BLOCK_BYTES} bytes")
        if flags & h2.END_HEADERS:
            self._block = None
            self._headers_complete(stream_id, first_flags, bytes(block))

    def _headers_complete(self, stream_id: int, flags: int, block: bytes) -> None:
        if len(block) > _SMALL_BYTES:
            self.control_budget.spend(Flood.LARGE_HEADERS, len(block) / _SMALL_BYTES)
        headers = self._headers.decode(block)
        stream = self._streams.get(stream_id)
        if stream:
            self._trailers(stream, flags, headers)
        elif stream_id > self._last_stream_id:
            self._open(stream_id, flags, headers)
        elif stream_id not in self._ended:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a stream that has ended")
        else:
            self.control_budget.spend(Flood.ENDED_STREAM)

    def _open(self, stream_id: int, flags: int, headers: HeaderBlock) -> None:
        self._last_stream_id = stream_id
        if stream_id > self._newest_allowed_id or len(self._streams) >= MAX_CONCURRENT_STREAMS:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM)
        if headers.fault:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
        stream = self._new_stream(self, stream_id, headers)
        stream.send_window = self.outbox.stream_window
        stream.receive_window = STREAM_WINDOW_BYTES
        stream.declare(headers.content_length)
        self._streams[stream_id] = stream
        self.held_bytes += STREAM_BYTES
        self._memory.change(STREAM_BYTES)
        if stream_id not in self._streams:
            return
        if flags & h2.END_STREAM:
            stream.peer_done = True
            stream.count(0, last=True)
        stream.opened()
        if flags & h2.END_STREAM and stream_id in self._streams:
            stream.peer_ended()

    def _trailers(self, stream: Stream, flags: int, headers: HeaderBlock) -> None:
        if stream.peer_done:
            raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED)
        if headers.trailers_fault or not flags & h2.END_STREAM:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.count(0, last=True)
        self._peer_ended(stream)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        _expect(len(payload) == 4, "WINDOW_UPDATE", ErrorCode.FRAME_SIZE_ERROR)
        increment = h2.uint31(payload, 0)
        if stream_id == 0:
            self.outbox.widen(increment)
        elif stream := self._streams.get(stream_id):
            self.outbox.widen_stream(stream, increment)
        else:
            self._expect_known(stream_id)
            self.control_budget.spend(Flood.ENDED_STREAM)
        if increment < _SMALL_BYTES:
            self.control_budget.spend(Flood.WINDOW_UPDATE)

    def _rst_stream(self, stream_id: int, size: int) -> None:
        _expect(size == 4, "RST_STREAM", ErrorCode.FRAME_SIZE_ERROR)
        self._expect_known(stream_id)
        # Gateways often reset streams that carried requests, which restore the budget. A flood carries none.
        self.control_budget.spend(Flood.RST_STREAM)
        if stream := self._streams.get(stream_id):
            self._abort(stream)
            self._close_when_idle()

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect(stream_id == 0, "SETTINGS")
        if flags & h2.ACK:
            _expect(not payload, "SETTINGS", ErrorCode.FRAME_SIZE_ERROR)
            if self._settings_acknowledged:
                self.control_budget.spend(Flood.SETTINGS)
            self._settings_acknowledged = True
            self._headers.forbid_table()
            return
        if not self._settled:
            self._settled = True
            self._timer.cancel()
        settings = h2.read_settings(payload)
        self.control_budget.spend(Flood.SETTINGS, max(1, len(settings)))
        for identifier, value in settings:
            if identifier == Setting.MAX_FRAME_SIZE:
                self.outbox.limit_frames(value)
        if sizes := [value for identifier, value in settings if identifier == Setting.INITIAL_WINDOW_SIZE]:
            self.control_budget.spend(Flood.SETTINGS, len(self._streams) / _STREAMS_PER_COST)
            self.outbox.resize_windows(sizes, self._streams.values())
        self.outbox.control(h2.frame(h2.SETTINGS, h2.ACK, 0, b""))

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect(stream_id == 0, "PING")
        _expect(len(payload) == 8, "PING", ErrorCode.FRAME_SIZE_ERROR)
        if flags & h2.ACK and payload == _DRAIN_PING and self._draining:
            self._take_no_more()
            return
        self.control_budget.spend(Flood.PING)
        if not flags & h2.ACK:
            self.outbox.control(h2.frame(h2.PING, h2.ACK, 0, payload))

    def _priority(self, stream_id: int, payload: bytes) -> None:
        _expect(stream_id != 0, "PRIORITY")
        self.control_budget.spend(Flood.PRIORITY)
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        self._check_dependency(stream_id, payload, 0)

    def _check_dependency(self, stream_id: int, buffer: bytes, start: int) -> None:
        if h2.uint31(buffer, start) == stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _expect_known(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id > self._last_stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame for a stream that was never opened")

    # Ends of streams and of the connection.

    def _peer_ended(self, stream: Stream) -> None:
        stream.peer_done = True
        # The last data may have made the stream end itself.
        if stream.id in self._streams:
            stream.peer_ended()

    def _answered(self, stream: Stream) -> None:
        """Forget a stream whose last frame is written, and reset it if the peer still sends."""
        if stream.peer_done:
            self._drop(stream)
        else:
            self.reset(stream, ErrorCode.NO_ERROR)
        self._close_when_idle()

    def _stream_fault(self, fault: StreamFault) -> None:
        self.control_budget.spend(Flood.FAULTY_FRAME)
        self._remember_end(fault.stream_id)
        self.outbox.control(h2.rst_stream(fault.stream_id, fault.code))
        if stream := self._streams.get(fault.stream_id):
            self._abort(stream)
            self._close_when_idle()

    def _remember_end(self, stream_id: int) -> None:
        self._ended[stream_id] = None
        if len(self._ended) > _ENDED_STREAMS:
            self._ended.popitem(last=False)

    def _abort(self, stream: Stream) -> None:
        self._drop(stream)
        stream.aborted()

    def _drop(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None):
            self._account(stream, -STREAM_BYTES)
            self._held_back.pop(stream.id, None)
            self.outbox.forget(stream)

    def _account(self, stream: Stream, held: int) -> None:
        difference = held - stream.accounted_bytes
        stream.accounted_bytes = held
        self.held_bytes += difference
        if held > 0:
            self._buffering[stream.id] = stream
        elif self._buffering.pop(stream.id, None) and self._held_back:
            self._credit_oldest()
        self._memory.change(difference)

    def _credit_oldest(self) -> None:
        """Let the oldest of the streams with buffers send on, so that at least this one comes to its end."""
        for stream_id in self._buffering:
            if stream := self._held_back.pop(stream_id, None):
                self.credit(stream)
                self.outbox.flush_soon()
            return

    def _take_no_more(self) -> None:
        """Refuse streams newer than those received so far. This is the second step of draining."""
        if self._leaving or self._closing:
            return
        self._leaving = True
        self._timer.cancel()
        self._newest_allowed_id = self._last_stream_id
        self.outbox.control(h2.goaway(self._last_stream_id, ErrorCode.NO_ERROR, "draining"))
        self.outbox.flush()
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._leaving and not self._streams and not self._closing:
            self._close()

    def _fail(self, code: ErrorCode, text: str) -> None:
        self.outbox.control(h2.goaway(self._last_stream_id, code, text))
        self.outbox.abandon()
        self._close()
        self._abort_all()

    def _abort_all(self) -> None:
        """Abort the streams, in several turns of the event loop if need be. Then a lost connection is done with."""
        end = monotonic() + _TURN_S
        while self._streams and monotonic() <= end:
            self._abort(next(reversed(self._streams.values())))
        if self._streams:
            self._loop.call_soon(self._abort_all)
        elif self._is_lost:
            self._is_lost = False
            self._memory.remove_connection(self)
            self._on_lost(self)

    def _close(self) -> None:
        """Write the last frames and wait for the peer to close; ignore whatever the peer still sends.

        Closing while the peer sends could make TCP discard the last frames.
        """
        self._closing = True
        self._unread = None
        self._timer.cancel()
        self._timer = self._loop.call_later(_FAREWELL_S, self._transport.abort)
        self.outbox.close()


def _expect(condition: bool, kind: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
    if not condition:
        raise ConnectionFault(code, f"a malformed {kind} frame")
