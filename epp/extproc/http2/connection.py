"""The server's side of an HTTP/2 connection (RFC 9113), as far as gRPC needs it: its beginning and its end.

The memory that a peer can occupy here is bounded by the windows, the number of streams, the size of a header block,
and a budget for frames that cause work and carry no request. The time that one peer's frames take from the event loop
at once is bounded by turns.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget, Flood, FloodFault
from epp.extproc.http2.delay import DELAY_PING, Delay
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, FrameReader, Setting
from epp.extproc.http2.headers import MAX_BLOCK_BYTES, HeaderBlock
from epp.extproc.http2.memory import Memory
from epp.extproc.http2.outbox import Outbox
from epp.extproc.http2.receiver import CONNECTION_WINDOW_BYTES, MAX_CONCURRENT_STREAMS, Receiver
from epp.extproc.http2.rota import Rota
from epp.extproc.http2.stream import Stream
from epp.extproc.http2.streams import STREAM_WINDOW_BYTES, StreamTable
from epp.extproc.http2.turns import Turns

logger = logging.getLogger("headroom.epp.http2")

# Time in which a new client must send the HTTP/2 preface and SETTINGS.
_PREFACE_S: Final = 10.0
# Time that a peer has to answer the PING, and to close its end, after GOAWAY.
_FAREWELL_S: Final = 1.0
# What a peer may send on after this side has closed, before it is cut off: what may be on its way when all is well.
_LATE_BYTES: Final = 1 << 20
_DRAIN_PING: Final = b"draining"
_PREFACE: Final = h2.settings_frame(
    {
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    }
) + h2.window_update(0, CONNECTION_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES)


def peer_text(address: object) -> str:
    """Return a client's address as the log has it."""
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else "an unknown address"


class Connection(asyncio.Protocol):
    """One connection. `new_stream` makes the stream of a well-formed request.

    `on_made` and `on_lost` are called when the connection begins and ends, `on_flood` with the kind and
    the address of a peer that is cut off. Streams answer through `outbox`, and tell `streams` what they keep.
    """

    address: str
    outbox: Outbox
    streams: StreamTable
    turns: Turns

    def __init__(
        self,
        new_stream: Callable[["Connection", int, HeaderBlock], Stream],
        memory: Memory,
        rota: Rota,
        on_made: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        on_flood: Callable[[Flood, str], None],
    ) -> None:
        self._new_stream = new_stream
        self._memory = memory
        self._rota = rota
        self._on_made = on_made
        self._on_lost = on_lost
        self._on_flood = on_flood
        self._loop = asyncio.get_running_loop()
        # Calls back after this turn's answers are written, at the turn's end or by a planned flush.
        self.after_flush: Callable[[Callable[[], None]], object] = self._loop.call_soon
        self._reader = FrameReader()
        self._draining = False
        # True once the peer or this side ends new streams: the connection closes with the last open stream.
        self._leaving = False
        self._closing = False
        self._late_bytes = 0
        self._is_lost = False
        self.control_budget = ControlFrameBudget()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.address = peer_text(transport.get_extra_info("peername"))
        self._timer = self._loop.call_later(_PREFACE_S, self._transport.abort)
        self._share = self._memory.join(self)
        self.outbox = Outbox(self._transport, self._share, self._answered)
        self.streams = StreamTable(self._share, self.outbox)
        self._receiver = Receiver(
            self.streams,
            self.outbox,
            self._share,
            self.control_budget,
            partial(self._new_stream, self),
            on_settled=self._timer.cancel,
            on_leaving=self._leave,
            on_pong=self._take_pong,
        )
        self._delay = Delay(partial(self.outbox.control, h2.frame(h2.PING, 0, 0, DELAY_PING)))
        self.turns = Turns(
            self._transport, self._share, self._receiver, self._delay, self._rota, self.control_budget, self._turn
        )
        self.outbox.control(_PREFACE)
        self.outbox.flush()
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._late_bytes += len(data)
            if self._late_bytes > _LATE_BYTES:
                self._transport.abort()
            return
        self.turns.arrive(self._reader.read(data), len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = self._is_lost = True
        self._timer.cancel()
        self.turns.stop()
        self.turns.begin()
        self.turns.abort_all(self.streams, self._all_aborted)

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    # Called by the memory.

    def make_room(self) -> bool:
        """Reset a stream. Without streams, the peer leaves too much unread, or sends too much at once: cut it off."""
        if self.streams.reset_newest():
            self._on_flood(Flood.MEMORY, self.address)
            return True
        if not self._transport.is_closing():
            self._on_flood(Flood.MEMORY, self.address)
            self._transport.abort()
        return False

    def open_windows(self) -> None:
        self.streams.credit_held_back()

    # Called by the front.

    def refuse(self, *, says_why: bool) -> None:
        """Close a new connection, because too many are open."""
        self._on_flood(Flood.CONNECTIONS, self.address)
        if says_why:
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, "too many connections")
        else:
            self._closing = True
            self.turns.stop()
            self._transport.abort()

    def drain(self) -> None:
        """Refuse new streams, let the open ones end, then close the connection (RFC 9113, 6.8)."""
        if self._closing or self._draining:
            return
        self._draining = True
        if not self._receiver.settled:
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
        for stream in list(self.streams.open.values()):
            self.streams.reset(stream, ErrorCode.CANCEL)
            stream.aborted()
        self._close()

    def _turn(self, now_s: float) -> None:
        """Handle what has arrived, for a bounded time, and write the answers."""
        try:
            self.turns.read(now_s)
        except FloodFault as fault:
            self._on_flood(fault.kind, self.address)
            self._fail(fault.code, str(fault))
        except ConnectionFault as fault:
            logger.debug("closing a connection: %s", fault)
            self._fail(fault.code, str(fault))
        except Exception:
            logger.exception("closing a connection after an error of this server")
            self._fail(ErrorCode.INTERNAL_ERROR, "the server failed")
        if self._leaving:
            self._close_when_idle()
        self.outbox.flush()

    # The connection's end.

    def _answered(self, stream: Stream) -> None:
        """Forget a stream whose last frame is written, and reset it if the peer still sends."""
        if stream.peer_done:
            self.streams.drop(stream)
        else:
            self.streams.reset(stream, ErrorCode.NO_ERROR)
        if self._leaving:
            self._close_when_idle()

    def _leave(self) -> None:
        self._leaving = True

    def _take_pong(self, payload: bytes) -> bool:
        """Tell whether this answers a PING of this side. Everything that the peer sent before it has arrived then."""
        if payload == DELAY_PING:
            return self._delay.answered(self.turns.now_s)
        if not self._draining or payload != _DRAIN_PING:
            return False
        self._take_no_more()
        return True

    def _take_no_more(self) -> None:
        """Refuse streams newer than those received so far. This is the second step of draining."""
        if self._leaving or self._closing:
            return
        self._leaving = True
        self._timer.cancel()
        last = self._receiver.newest_allowed_id = self._receiver.last_stream_id
        self.outbox.control(h2.goaway(last, ErrorCode.NO_ERROR, "draining"))
        self.outbox.flush()
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if not self.streams.open and not self._closing:
            self._close()

    def _fail(self, code: ErrorCode, text: str) -> None:
        self.outbox.control(h2.goaway(self._receiver.last_stream_id, code, text))
        self.outbox.abandon()
        self._close()
        self.turns.abort_all(self.streams, self._all_aborted)

    def _all_aborted(self) -> None:
        """Take leave of a lost connection."""
        if self._is_lost:
            self._is_lost = False
            self._memory.leave(self._share)
            self._on_lost(self)

    def _close(self) -> None:
        """Write the last frames and wait for the peer to close; ignore what the peer still sends, up to a bound.

        Closing while the peer sends could make TCP discard the last frames.
        """
        self._closing = True
        self.turns.stop()
        self._timer.cancel()
        self._timer = self._loop.call_later(_FAREWELL_S, self._transport.abort)
        self.outbox.close()
