"""Shares the event loop among connections: each handles what has arrived for a bounded time in a turn.

The rest of what has arrived waits for the connection's next turn, and reading pauses until then.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from time import monotonic
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.budget import ControlFrameBudget
from epp.extproc.http2.delay import Delay
from epp.extproc.http2.frames import Frame, StreamFault
from epp.extproc.http2.memory import Share
from epp.extproc.http2.receiver import Receiver
from epp.extproc.http2.rota import Rota
from epp.extproc.http2.stream import Stream
from epp.extproc.http2.streams import StreamTable

# Time that one connection's frames may take from the event loop in one turn. A request of a neighbour needs several
# turns, and waits so long in each.
_TURN_S: Final = 0.0005
# Time between the turns of a connection that looks like a flood.
_PAUSE_S: Final = 0.002


class Turns:
    """The turns of one connection. `on_turn` is called in each with the time, and calls `read` with it."""

    def __init__(
        self,
        transport: asyncio.Transport,
        share: Share,
        receiver: Receiver,
        delay: Delay,
        rota: Rota,
        budget: ControlFrameBudget,
        on_turn: Callable[[float], None],
    ) -> None:
        self._transport = transport
        self._share = share
        self._receiver = receiver
        self._delay = delay
        self._rota = rota
        self._budget = budget
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        # Frames that have arrived and wait for the next turn, their bytes, and streams with such messages.
        self._unread: Iterator[Frame] | None = None
        self._unread_bytes = 0
        self._backlog: deque[Stream] = deque()
        # True while frames or messages wait for a turn. Reading pauses until none is left.
        self.unfinished = False
        self._planned = False
        self._stopped = False
        # A transport may deliver several reads in one turn of the event loop, and the connection may end in it, too.
        # They share the time.
        self._end_s = 0.0
        # The time when the present frame's turn came, and whether the next read gets what came during a pause.
        self.now_s = 0.0
        self._paused = False

    @property
    def waited_s(self) -> float:
        """How long the present frame has waited for its turn."""
        return self._delay.waited_s(self.now_s)

    def arrive(self, frames: Iterator[Frame], size: int) -> None:
        """Handle frames of so many bytes, after those that wait."""
        if self.unfinished:
            # Some transports still deliver what they have read when reading pauses.
            self._unread = chain(self._unread or (), frames)
        else:
            now_s = monotonic()
            self._delay.read(now_s, was_idle=not self._paused)
            self._paused = False
            self._unread = frames
            self._on_turn(now_s)
        if self.unfinished and not self._stopped:
            self._unread_bytes += size
            self._share.change(size)

    def begin(self) -> None:
        """Begin a turn of full length: this is called by the event loop."""
        self._end_s = 0.0

    def read(self, now_s: float) -> None:
        """Handle messages and frames that wait. Plan another turn if some are left when this turn's time is over."""
        self.now_s = now_s
        if now_s > self._end_s:
            self._end_s = now_s + _TURN_S
        end_s = self._end_s
        if self._backlog and not self._work_off(end_s):
            self._plan()
            return
        receiver = self._receiver
        for kind, flags, stream_id, buffer, start, stop in self._unread or ():
            try:
                if kind == h2.DATA:
                    receiver.data(flags, stream_id, buffer, start, stop)
                else:
                    receiver.other(kind, flags, stream_id, buffer, start, stop)
            except StreamFault as fault:
                receiver.reset_faulty(fault)
            if self._stopped:
                return
            self.now_s = now_s = monotonic()
            if now_s > end_s:
                self._plan()
                return
        self._unread = None
        if self._backlog:
            self._plan()

    def is_over(self) -> bool:
        """Tell whether this turn's time is over."""
        return monotonic() > self._end_s

    def go_on_later(self, stream: Stream) -> None:
        """Call the stream's `go_on` in a later turn. Nothing more is read from the peer until then."""
        self._backlog.append(stream)
        self._plan()

    def take(self) -> None:
        """Take a turn. Read on from the peer when nothing is left of what has arrived."""
        if not self._planned or self._stopped:
            return
        self._planned = False
        self.begin()
        self._on_turn(monotonic())
        if not (self._planned or self._stopped):
            self.unfinished = False
            self._forget_unread()
            if not self._transport.is_closing():
                self._transport.resume_reading()
                self._paused = True
                # Whatever waits in the socket is read before the second of two further turns.
                self._loop.call_soon(self._loop.call_soon, self._socket_is_empty)

    def stop(self) -> None:
        """Forget what waits, and take no more turns. Reading goes on, else the peer's end would go unnoticed."""
        if self._stopped:
            return
        self._stopped = True
        self._unread = None
        self._backlog.clear()
        self._forget_unread()
        if self.unfinished and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort_all(self, streams: StreamTable, then: Callable[[], None]) -> None:
        """Abort the streams, in several turns of the event loop if need be, and call `then` when none is left."""
        now_s = monotonic()
        if now_s > self._end_s:
            self._end_s = now_s + _TURN_S
        while streams.open:
            streams.abort(next(reversed(streams.open.values())))
            if self.is_over():
                break
        if streams.open:
            self._rota.add(partial(self.abort_all, streams, then))
        else:
            then()

    def _plan(self) -> None:
        if self._planned or self._stopped:
            return
        self._planned = True
        self._delay.left_over(self.now_s)
        if not self.unfinished:
            self.unfinished = True
            self._transport.pause_reading()
        if self._budget.is_strained:
            self._loop.call_later(_PAUSE_S, self._rota.add, self.take)
        else:
            self._rota.add(self.take)

    def _work_off(self, end_s: float) -> bool:
        """Let each stream with waiting messages go on. Return False if the turn's time is over before."""
        for _ in range(len(self._backlog)):
            self._backlog.popleft().go_on()
            self.now_s = monotonic()
            if self.now_s > end_s:
                return False
        return True

    def _socket_is_empty(self) -> None:
        self._paused = False

    def _forget_unread(self) -> None:
        unread, self._unread_bytes = self._unread_bytes, 0
        if unread:
            self._share.change(-unread)
