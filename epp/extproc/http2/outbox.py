"""Sends the frames of an HTTP/2 connection in few writes, within the peer's windows and the transport's buffer."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from epp.extproc.http2.stream import Stream

# Largest DATA frame: one piece of a body from ext_proc fits, and no stream delays the others for long.
_FRAME_BYTES: Final = 64 << 10
_WRITE_BYTES: Final = 256 << 10
# Abort the connection when more than this is written and unread by the peer.
_UNREAD_BYTES: Final = 8 << 20


class Outbox:
    """The queue of frames to send. It calls `on_end` with a stream when the stream's last frame is written."""

    def __init__(self, transport: asyncio.Transport, on_end: Callable[[Stream], None]) -> None:
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._transport = transport
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes | memoryview] = []
        # Streams with queued data, in the order of their turns.
        self._waiting: dict[int, Stream] = {}
        self._window = h2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = h2.MAX_FRAME_BYTES
        self._paused = False
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
            self._waiting[stream.id] = stream

    def end(self, stream: Stream, block: bytes) -> None:
        """End a stream with these headers or trailers, after its queued data."""
        stream.trailers = block
        if not stream.queued_bytes:
            self._end(stream)

    def forget(self, stream: Stream) -> None:
        """Drop the queued data of a stream."""
        self._waiting.pop(stream.id, None)

    def flush(self) -> None:
        """Write the gathered frames, and as much queued data as the windows allow."""
        if self._waiting:
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

    def resize_windows(self, size: int, streams: Iterable[Stream]) -> None:
        """Change the initial window of every stream. A window may fall below zero (RFC 9113, 6.9.2)."""
        difference, self.stream_window = size - self.stream_window, size
        for stream in streams:
            stream.send_window += difference
            if stream.send_window > h2.LARGEST_WINDOW_BYTES:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a stream's window")

    def _planned_flush(self) -> None:
        self._flush_planned = False
        self.flush()

    def _send_waiting(self) -> None:
        """Send one frame of each stream in turn, until no data is left, no window is open, or writing is paused."""
        gathered, sent = 0, True
        while sent:
            sent = False
            for stream in list(self._waiting.values()):
                if self._window <= 0 or self._paused:
                    return
                if size := self._send_some(stream):
                    sent = True
                    gathered += size
                    if gathered >= _WRITE_BYTES:
                        self._write()
                        gathered = 0

    def _send_some(self, stream: Stream) -> int:
        size = min(stream.queued_bytes, stream.send_window, self._window, self._frame_bytes)
        if size <= 0:
            return 0
        stream.send_window -= size
        self._window -= size
        self._frames.append(h2.frame_header(h2.DATA, 0, stream.id, size))
        self._frames.extend(stream.dequeue(size))
        del self._waiting[stream.id]
        if stream.queued_bytes:
            self._waiting[stream.id] = stream
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
        if self._paused and self._transport.get_write_buffer_size() > _UNREAD_BYTES:
            self._transport.abort()
