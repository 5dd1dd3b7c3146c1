"""The open streams of an HTTP/2 connection, what they occupy, and which of them may send more."""

from collections import OrderedDict
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.frames import ErrorCode
from epp.extproc.http2.memory import STREAM_BYTES, Share
from epp.extproc.http2.outbox import Outbox
from epp.extproc.http2.stream import Stream

STREAM_WINDOW_BYTES: Final = 1 << 20
# Streams ended by this side that are remembered: the peer may still send frames before it learns of the end.
_ENDED_STREAMS: Final = 1_024
# What so many of them occupy, roughly.
_ENDED_AT_ONCE: Final = 128
_ENDED_BYTES: Final = 16_384


class StreamTable:
    """The streams of one connection. `open` has the open ones by their number, in the order of their beginning."""

    __slots__ = ("_buffering", "_ended", "_outbox", "_share", "held_back", "open")

    def __init__(self, share: Share, outbox: Outbox) -> None:
        self._share = share
        self._outbox = outbox
        self.open: dict[int, Stream] = {}
        # The streams with buffers in the order of their first byte, and those of them that may not send more until
        # there is room.
        self._buffering: OrderedDict[int, Stream] = OrderedDict()
        self.held_back: dict[int, Stream] = {}
        # In the order of their ends.
        self._ended: OrderedDict[int, None] = OrderedDict()

    def add(self, stream: Stream) -> bool:
        """Open a stream. Return False if there is no memory for it, and it is reset."""
        stream.send_window = self._outbox.stream_window
        stream.receive_window = STREAM_WINDOW_BYTES
        self.open[stream.id] = stream
        self._share.change(STREAM_BYTES)
        return stream.id in self.open

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream from this side, without a call of its `aborted`."""
        self.drop(stream)
        self.remember_end(stream.id)
        self._outbox.control(h2.rst_stream(stream.id, code))

    def abort(self, stream: Stream) -> None:
        self.drop(stream)
        stream.aborted()

    def drop(self, stream: Stream) -> None:
        """Forget a stream, and what is kept for it."""
        if self.open.pop(stream.id, None) is None:
            return
        held, stream.accounted_bytes = stream.accounted_bytes, 0
        if held:
            self.held_back.pop(stream.id, None)
            self._no_longer_buffers(stream)
        if stream.queued_bytes:
            self._outbox.forget(stream)
        self._share.change(-STREAM_BYTES - held)

    def remember_end(self, stream_id: int) -> None:
        """Remember a stream that this side has ended."""
        if stream_id in self._ended:
            return
        self._ended[stream_id] = None
        if len(self._ended) > _ENDED_STREAMS:
            self._ended.popitem(last=False)
        elif len(self._ended) % _ENDED_AT_ONCE == 0:
            self._share.change(_ENDED_BYTES)

    def was_ended(self, stream_id: int) -> bool:
        """Tell whether this side has ended the stream of late."""
        return stream_id in self._ended

    def account(self, stream: Stream) -> None:
        """Take in what is kept for a stream. The stream may be reset if there is no room for it."""
        held = stream.held_bytes
        difference = held - stream.accounted_bytes
        if not difference or stream.id not in self.open:
            return
        stream.accounted_bytes = held
        if held:
            self._buffering[stream.id] = stream
        else:
            self._no_longer_buffers(stream)
            if self.held_back.pop(stream.id, None):
                self.credit(stream)
                self._outbox.flush_soon()
        self._share.change(difference)

    def credit(self, stream: Stream) -> None:
        """Let the peer send more on a stream, if at least half of the stream's window is used up."""
        if stream.receive_window > STREAM_WINDOW_BYTES // 2 or stream.busy or stream.peer_done:
            return
        if stream.id not in self.open:
            return
        share = self._share
        if share.is_tight and stream.accounted_bytes and stream is not next(iter(self._buffering.values())):
            self.held_back[stream.id] = stream
            share.memory.waiting.add(share)
            return
        self._outbox.control(h2.window_update(stream.id, STREAM_WINDOW_BYTES - stream.receive_window))
        stream.receive_window = STREAM_WINDOW_BYTES

    def credit_held_back(self) -> None:
        """Credit the streams that were held back."""
        held_back, self.held_back = self.held_back, {}
        for stream in held_back.values():
            self.credit(stream)
        self._outbox.flush_soon()

    def reset_newest(self) -> bool:
        """Reset the newest of the streams with buffers, because the older are nearer to their ends.

        Return False if no stream is open.
        """
        streams = self._buffering or self.open
        if not streams:
            return False
        stream = next(reversed(streams.values()))
        self.reset(stream, ErrorCode.ENHANCE_YOUR_CALM)
        stream.aborted()
        self._outbox.flush_soon()
        return True

    def _no_longer_buffers(self, stream: Stream) -> None:
        """Let the oldest of the other streams with buffers send on, so that at least this one comes to its end."""
        del self._buffering[stream.id]
        if not self.held_back:
            return
        for stream_id in self._buffering:
            if oldest := self.held_back.pop(stream_id, None):
                self.credit(oldest)
                self._outbox.flush_soon()
            return
