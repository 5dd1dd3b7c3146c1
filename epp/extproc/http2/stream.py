"""One stream of an HTTP/2 connection: its windows, what waits to be sent, and what its owner hears."""

from collections import deque
from collections.abc import Iterator

from epp.extproc.http2.frames import ErrorCode, StreamFault


class Stream:
    """A subclass hears what comes, and answers through the connection that it was made for.

    `busy` says that it wants no more data for now: the peer's window is not opened further, so that what it may still
    send is bounded. Set it to False and call the connection's `credit(stream)` to go on.
    """

    __slots__ = (
        "_queue",
        "_undeclared_bytes",
        "busy",
        "id",
        "peer_done",
        "queued_bytes",
        "receive_window",
        "send_window",
        "trailers",
    )

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.busy = False
        self.peer_done = False
        self.send_window = 0
        self.receive_window = 0
        self.queued_bytes = 0
        self.trailers: bytes | None = None
        self._queue: deque[memoryview] | None = None
        self._undeclared_bytes = -1

    def opened(self) -> None:
        """The request's headers are here."""

    def data_received(self, buffer: bytes, start: int, end: int) -> None:
        """buffer[start:end] has come."""

    def peer_ended(self) -> None:
        """Nothing more will come."""

    def drained(self) -> None:
        """All that was queued has been sent."""

    def aborted(self) -> None:
        """The stream is gone: reset, or lost with its connection. Nothing can be sent any more."""

    def declare(self, content_length: int) -> None:
        """How many bytes the request's headers announce; -1 when they don't."""
        self._undeclared_bytes = content_length

    def count(self, size: int, *, last: bool) -> None:
        """StreamFault when what has come is not what was announced."""
        if self._undeclared_bytes >= 0:
            self._undeclared_bytes -= size
            if self._undeclared_bytes < 0 or (last and self._undeclared_bytes):
                raise StreamFault(self.id, ErrorCode.PROTOCOL_ERROR)

    def enqueue(self, *pieces: bytes) -> None:
        if self._queue is None:
            self._queue = deque()
        for piece in pieces:
            if piece:
                self._queue.append(memoryview(piece))
                self.queued_bytes += len(piece)

    def dequeue(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes of the queue, as they lie there."""
        self.queued_bytes -= size
        while size and self._queue:
            piece = self._queue.popleft()
            if len(piece) > size:
                self._queue.appendleft(piece[size:])
                piece = piece[:size]
            size -= len(piece)
            yield piece
