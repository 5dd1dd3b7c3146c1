"""What an HTTP/2 connection sends: gathered into few writes, within the peer's windows and what the transport takes."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from epp.extproc.http2 import frames as h2
from epp.extproc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from epp.extproc.http2.stream import Stream

# A piece of a body that ext_proc hands back fits into one frame, and no stream holds up the others for long.
_FRAME_BYTES: Final = 64 << 10
_WRITE_BYTES: Final = 256 << 10
# More than this that the peer doesn't read, beside what its windows hold back, and it is given up.
_UNREAD_BYTES: Final = 8 << 20


class Outbox:
    """`on_end` hears of a stream once its last frame is written."""

    def __init__(self, transport: asyncio.Transport, on_end: Callable[[Stream], None]) -> None:
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._transport = transport
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes | memoryview] = []
        # Streams with something queued, the one whose turn is next first.
        self._waiting: dict[int, Stream] = {}
        self._window = h2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = h2.MAX_FRAME_BYTES
        self._paused = False
        self._closed = False
        self._flush_planned = False
        self.stream_window = h2.DEFAULT_WINDOW_BYTES

    def control(self, frame: bytes) -> None:
        """Sends a frame that no window holds back."""
        self._frames.append(frame)

    def data(self, stream: Stream, head: bytes, body: bytes) -> None:
        """Sends both in one frame when there is room for it, and as the windows allow otherwise."""
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
        """Ends a stream by these headers or trailers, after what is queued for it."""
        stream.trailers = block
        if not stream.queued_bytes:
            self._end(stream)

    def forget(self, stream: Stream) -> None:
        """Nothing more goes out for this stream."""
        self._waiting.pop(stream.id, None)

    def flush(self) -> None:
        """Writes what is gathered, and of what is queued all that may go."""
        if self._waiting:
            self._send_waiting()
        if self._frames:
            self._write()

    def close(self) -> None:
        """Writes what is gathered, and ends this direction."""
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
            # The peer has gone, and the event loop doesn't know yet.
            self._transport.abort()

    def flush_soon(self) -> None:
        """For answers that come from elsewhere than the connection's input: those of one turn go out together."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._planned_flush)

    def pause(self) -> None:
        """The transport's buffer is full: data stays with its stream."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.flush()

    def limit_frames(self, size: int) -> None:
        """The peer takes frames of this size, of which this side may make less use."""
        self._frame_bytes = min(size, _FRAME_BYTES)

    def widen(self, increment: int) -> None:
        """The peer takes more on the connection."""
        self._window += increment
        if not increment or self._window > h2.LARGEST_WINDOW_BYTES:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise ConnectionFault(code, f"a connection's window is enlarged by {increment}")

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """The peer takes more on one stream."""
        stream.send_window += increment
        if not increment or stream.send_window > h2.LARGEST_WINDOW_BYTES:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)

    def resize_windows(self, size: int, streams: Iterable[Stream]) -> None:
        """The peer has changed what it takes on every stream, which may leave a window below zero (6.9.2)."""
        difference, self.stream_window = size - self.stream_window, size
        for stream in streams:
            stream.send_window += difference
            if stream.send_window > h2.LARGEST_WINDOW_BYTES:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a stream's window")

    def _planned_flush(self) -> None:
        self._flush_planned = False
        self.flush()

    def _send_waiting(self) -> None:
        """A frame of each stream in turn, until nothing is left, fits or is taken."""
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
