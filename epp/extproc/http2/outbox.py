"""Sends the frames of an HTTP/2 connection in few writes, within the peer's windows and the transport's buffer."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from epp.extproc.http2.memory import Share
from epp.extproc.http2.stream import Stream

# Largest DATA frame: one piece of a body from ext_proc fits, and no stream delays the others for long.
_FRAME_BYTES: Final = 64 << 10
_WRITE_BYTES: Final = 256 << 10
# Most DATA frames of queued data in one turn of the event loop: a millisecond of work.
_FRAMES_PER_FLUSH: Final = 256
# Abort the connection when more than this is written and unread by the peer.
_UNREAD_BYTES: Final = 8 << 20


class Outbox:
    """The queue of frames to send. It calls `on_end` with a stream when the stream's last frame is written."""

    def __init__(self, transport: asyncio.Transport, share: Share, on_end: Callable[[Stream], None]) -> None:
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._transport = transport
        self._share = share
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes | memoryview] = []
        # Streams with queued data: those whose windows are open, in the order of their turns, and the others.
        self._sendable: OrderedDict[int, Stream] = OrderedDict()
        self._blocked: dict[int, Stream] = {}
        self._window = h2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = h2.MAX_FRAME_BYTES
        self._paused = False
        # What the transport keeps because the peer doesn't read, while writing is paused.
        self._unread_bytes = 0
        self._closed = False
        self._flush_planned = False
        self.stream_window = h2.DEFAULT_WINDOW_BYTES

    def control(self, frame: bytes) -> None:
        """Send a frame to which no window applies."""
        self._frames.append(frame)

    def data(self, stream: Stream, head: bytes, body: bytes) -> None:
        """Send `head` and `body` in one frame if there is room, else queue them until the windows allow it."""
        size = len(head) + len(body)
        if (
            size <= stream.send_window
            and size <= self._window
            and size <= self._frame_bytes
            and not (stream.queued_bytes or self._paused)
        ):
            stream.send_window -= size
            self._window -= size
            self._frames += (h2.frame_header(h2.DATA, 0, stream.id, size), head, body)
        else:
            stream.enqueue(head, body)
            self._wait(stream)

    def end(self, stream: Stream, block: bytes) -> None:
        """End a stream with these headers or trailers, after its queued data."""
        stream.trailers = block
        if not stream.queued_bytes:
            self._end(stream)

    def forget(self, stream: Stream) -> None:
        """Drop the queued data of a stream."""
        self._sendable.pop(stream.id, None)
        self._blocked.pop(stream.id, None)

    def abandon(self) -> None:
        """Drop the queued data of all streams."""
        self._sendable.clear()
        self._blocked.clear()

    def flush(self) -> None:
        """Write the gathered frames, and as much queued data as the windows allow."""
        if self._sendable:
            self._send_waiting()
        if self._frames:
            self._write()

    def close(self) -> None:
        """Flush, and end this direction of the connection."""
        self.flush()
        self._closed = True
        if self._transport.is_closing():
            return
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:
            # The peer has gone, and the event loop has not noticed yet.
            self._transport.abort()

    def flush_soon(self) -> None:
        """Plan one flush for all answers of this turn that are not made while reading from the connection."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._planned_flush)

    def pause(self) -> None:
        """Queue data with its stream, because the transport's buffer is full."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._hold(0)
        self.flush()

    def limit_frames(self, size: int) -> None:
        """Limit frames to `size` bytes, the peer's limit, or to this side's own limit if that is smaller."""
        self._frame_bytes = min(size, _FRAME_BYTES)

    def widen(self, increment: int) -> None:
        """Enlarge the connection's window."""
        self._window += increment
        if not increment or self._window > h2.LARGEST_WINDOW_BYTES:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise ConnectionFault(code, f"a connection's window is enlarged by {increment}")

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """Enlarge the window of one stream."""
        stream.send_window += increment
        if not increment or stream.send_window > h2.LARGEST_WINDOW_BYTES:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
        if stream.id in self._blocked:
            self._wait(stream)

    def resize_windows(self, sizes: Sequence[int], streams: Iterable[Stream]) -> None:
        """Change the initial window of every stream to each of `sizes` in turn, in one pass over the streams.

        A window may fall below zero (RFC 9113, 6.9.2). The last size remains; the largest must not overflow a window.
        """
        largest, difference = max(sizes) - self.stream_window, sizes[-1] - self.stream_window
        self.stream_window = sizes[-1]
        limit = h2.LARGEST_WINDOW_BYTES - largest
        for stream in streams:
            if stream.send_window > limit:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a stream's window")
            stream.send_window += difference
        if difference > 0:
            for stream in list(self._blocked.values()):
                self._wait(stream)

    def _wait(self, stream: Stream) -> None:
        """Let a stream with queued data wait for its turn, or for its window to open."""
        if stream.send_window <= 0:
            self._blocked[stream.id] = stream
        elif stream.id not in self._sendable:
            self._blocked.pop(stream.id, None)
            self._sendable[stream.id] = stream

    def _planned_flush(self) -> None:
        self._flush_planned = False
        self.flush()

    def _send_waiting(self) -> None:
        """Send one frame of each stream in turn, until no data is left, no window is open, or writing is paused."""
        gathered = 0
        for _ in range(_FRAMES_PER_FLUSH):
            if not self._sendable or self._window <= 0 or self._paused:
                return
            gathered += self._send_some(self._sendable.popitem(last=False)[1])
            if gathered >= _WRITE_BYTES:
                self._write()
                gathered = 0
        self.flush_soon()

    def _send_some(self, stream: Stream) -> int:
        size = min(stream.queued_bytes, stream.send_window, self._window, self._frame_bytes)
        if size <= 0:
            # The peer has shrunk its windows.
            self._wait(stream)
            return 0
        stream.send_window -= size
        self._window -= size
        self._frames.append(h2.frame_header(h2.DATA, 0, stream.id, size))
        self._frames.extend(stream.dequeue(size))
        if stream.queued_bytes:
            self._wait(stream)
        elif stream.trailers is not None:
            self._end(stream)
        else:
            stream.drained()
        return size

    def _end(self, stream: Stream) -> None:
        block = stream.trailers or b""
        self._frames.append(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream.id, block))
        self._on_end(stream)

    def _write(self) -> None:
        data = b"".join(self._frames)
        self._frames.clear()
        if self._closed or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._paused:
            self._hold(self._transport.get_write_buffer_size())
            if self._unread_bytes > _UNREAD_BYTES:
                self._transport.abort()

    def _hold(self, unread_bytes: int) -> None:
        difference, self._unread_bytes = unread_bytes - self._unread_bytes, unread_bytes
        if difference:
            self._share.change(difference)
