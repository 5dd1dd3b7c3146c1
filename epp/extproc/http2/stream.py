"""One stream of an HTTP/2 connection: its windows, its send queue, and its callbacks."""

from collections import deque
from collections.abc import Iterator

from epp.extproc.http2.frames import ErrorCode, StreamFault


class Stream:
    """The base class of streams. A subclass implements the callbacks, and answers through its connection.

    While `busy` is True the peer's window is not opened further, which bounds the data that the peer can still send.
    To go on, set `busy` to False and call `credit(stream)` of the connection's streams.
    """

    __slots__ = (
        "_queue",
        "accounted_bytes",
        "busy",
        "id",
        "peer_done",
        "queued_bytes",
        "receive_window",
        "send_window",
        "trailers",
        "undeclared_bytes",
    )

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        # What the connection has accounted for this stream's `held_bytes`.
        self.accounted_bytes = 0
        self.busy = False
        self.peer_done = False
        self.send_window = 0
        self.receive_window = 0
        self.queued_bytes = 0
        self.trailers: bytes | None = None
        self._queue: deque[memoryview] | None = None
        # The bytes still to come of the announced content-length; -1 if the headers announced none.
        self.undeclared_bytes = -1

    @property
    def held_bytes(self) -> int:
        """The bytes that are kept for this stream: those to send, and those received and not dealt with."""
        return self.queued_bytes

    def opened(self) -> None:
        """Called when the request's headers have arrived."""

    def data_received(self, buffer: bytes, start: int, end: int) -> None:
        """Called when the data buffer[start:end] has arrived."""

    def peer_ended(self) -> None:
        """Called when the peer has sent everything."""

    def drained(self) -> None:
        """Called when the send queue has become empty."""

    def go_on(self) -> None:
        """Called in a later turn of the event loop, after the connection's `go_on_later`."""

    def aborted(self) -> None:
        """Called when the stream is reset, or lost with its connection. Nothing can be sent any more."""

    def count(self, size: int, *, last: bool) -> None:
        """Count received bytes. Raise StreamFault when they don't match the announced number."""
        if self.undeclared_bytes >= 0:
            self.undeclared_bytes -= size
            if self.undeclared_bytes < 0 or (last and self.undeclared_bytes):
                raise StreamFault(self.id, ErrorCode.PROTOCOL_ERROR)

    def enqueue(self, *pieces: bytes) -> None:
        if self._queue is None:
            self._queue = deque()
        for piece in pieces:
            if piece:
                self._queue.append(memoryview(piece))
                self.queued_bytes += len(piece)

    def dequeue(self, size: int) -> Iterator[memoryview]:
        """Remove and yield the next `size` bytes of the queue, uncopied, in its pieces."""
        self.queued_bytes -= size
        while size and self._queue:
            piece = self._queue.popleft()
            if len(piece) > size:
                self._queue.appendleft(piece[size:])
                piece = piece[:size]
            size -= len(piece)
            yield piece
