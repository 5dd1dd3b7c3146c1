"""Reads gRPC messages from the DATA frames of a stream, and sends answers and a status back.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import asyncio
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct
from typing import Any, Final

from epp.extproc.http2.budget import Flood
from epp.extproc.http2.connection import Connection
from epp.extproc.http2.frames import END_HEADERS, HEADERS, frame
from epp.extproc.http2.statuses import ANSWER_HEADERS, trailers, trailers_only
from epp.extproc.http2.stream import Stream
from epp.extproc.rpc import Message, Services, StatusCode

# A stream's further messages wait while more than this much of its answers is unsent.
UNSENT_BYTES: Final = 1 << 20
# Messages of one stream that are handled before other streams and connections have their turn.
_MESSAGES_AT_ONCE: Final = 32
# Waiting data is read in pieces of this size, that of a client's largest frame.
_PIECE_BYTES: Final = 1 << 14
_PREFIX: Final = Struct(">BI")
_PREFIX_BYTES: Final = _PREFIX.size
# An incomplete message of more than this size has pages of its own. They are occupied as the message arrives, and
# return to the system at once: in the heap, incomplete messages of many sizes left gaps of 200 MiB.
_OWN_PAGES_BYTES: Final = 1 << 16
# Messages of this size are passed on as they were collected. A copy of 32 MiB takes 10 ms or more.
_UNCOPIED_BYTES: Final = 1 << 18


class MessageStream(Stream):
    """Splits the received bytes into messages. Subclasses answer them."""

    __slots__ = (
        "_connection",
        "_deadline",
        "_ended",
        "_headers_sent",
        "_kept_bytes",
        "_part",
        "_received_bytes",
        "_services",
        "_tasks",
        "_unread",
    )

    def __init__(
        self, connection: Connection, stream_id: int, services: Services, tasks: set[asyncio.Future[Any]]
    ) -> None:
        super().__init__(stream_id)
        self._connection = connection
        self._services = services
        self._tasks = tasks
        self._ended = False
        self._deadline: asyncio.TimerHandle | None = None
        self._headers_sent = False
        # Room for an incomplete message, and how much of the message has arrived.
        self._part: bytearray | mmap | None = None
        self._received_bytes = 0
        # Data that waits while the stream is busy, or a part of a message's prefix. Waiting data is not split into
        # messages: small ones would occupy ten times their size.
        self._unread: bytearray | None = None
        # What the part and the waiting data occupy.
        self._kept_bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._kept_bytes + self.queued_bytes

    def end_after(self, timeout_s: float) -> None:
        """End the stream when the client's deadline passes, even if the client sends nothing then."""
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._expire)

    def must_wait(self) -> bool:
        """Tell whether the next message has to wait."""
        raise NotImplementedError

    def message(self, message: Message) -> None:
        """Handle a whole message. If this makes the stream busy, further messages wait until `read_on`."""
        raise NotImplementedError

    def messages_ended(self) -> None:
        """Handle the end of the messages."""
        raise NotImplementedError

    def data_received(self, buffer: bytes, start: int, end: int) -> None:
        if self.trailers is not None:
            return
        if self._unread is None and not self.busy:
            start = self._read(buffer, start, end)
            if start == end:
                return
        if self._unread is None:
            self._unread = bytearray()
        self._unread += buffer[start:end]
        self._read_unread()

    def peer_ended(self) -> None:
        if self.trailers is not None or (self._unread is not None and self.busy):
            return
        if self._part is None and self._unread is None:
            self.messages_ended()
        else:
            self.fail(StatusCode.INTERNAL, "the last message is incomplete")
            self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)

    def read_on(self) -> None:
        """Handle waiting messages, now that there is no more reason to wait: in a turn, which may end in a fault."""
        if self._unread is None:
            self.go_on()
        else:
            self.busy = True
            self._connection.turns.go_on_later(self)

    def go_on(self) -> None:
        if self._ended:
            return
        self.busy = self.must_wait()
        self._read_unread()
        self._connection.streams.account(self)
        if self.busy:
            return
        if self.peer_done:
            self.peer_ended()
        else:
            self._connection.streams.credit(self)

    def answer(self, message: bytes) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.outbox.control(frame(HEADERS, END_HEADERS, self.id, ANSWER_HEADERS))
        self._connection.outbox.data(self, _PREFIX.pack(0, len(message)), message)

    def end(self, status: StatusCode, text: str = "") -> None:
        """End the stream with a status, after its queued data. Has no effect if the stream has ended."""
        if self._ended:
            return
        self._stop()
        self._connection.outbox.end(self, (trailers if self._headers_sent else trailers_only)(status, text))

    def fail(self, status: StatusCode, text: str) -> None:
        """End the stream after an error of the client or of this server."""
        self.busy = True
        self.end(status, text)

    def _read_unread(self) -> None:
        """Read waiting data until the stream is busy, or nothing of it is left but a part of a message's prefix."""
        while self._unread and not self.busy:
            piece = bytes(self._unread[:_PIECE_BYTES])
            read = self._read(piece, 0, len(piece))
            if not read or self._ended:
                break
            del self._unread[:read]
        if not self._unread:
            self._unread = None
        self._count_kept()

    def _read(self, buffer: bytes, start: int, end: int) -> int:
        """Handle messages, and keep an incomplete one. Return where the data begins that has to wait."""
        if self._part is not None:
            start += self._fill(self._part, buffer, start, end)
        count = paid = 0
        while end - start >= _PREFIX_BYTES and not self.busy:
            compressed, size = _PREFIX.unpack_from(buffer, start)
            if compressed or size > self._services.max_message_bytes:
                self._refuse(compressed, size)
                return end
            start += _PREFIX_BYTES
            if size > end - start:
                return start + self._begin(size, buffer, start, end)
            if not size:
                if not paid:
                    # A run of empty messages, which are zeros, is paid for at once: a flood ends before it costs work.
                    paid = 1 + (end - start - len(buffer[start:end].lstrip(b"\0"))) // _PREFIX_BYTES
                    self._connection.control_budget.spend(Flood.EMPTY_MESSAGE, paid)
                paid -= 1
            self.message(buffer[start : start + size])
            start, count = start + size, count + 1
            if self._ended:
                self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
                return end
            if start < end and not self.busy and (count == _MESSAGES_AT_ONCE or self._connection.turns.is_over()):
                self.busy = True
                self._connection.turns.go_on_later(self)
        return end if self._ended else start

    def _begin(self, size: int, buffer: bytes, start: int, end: int) -> int:
        """Make room for a message of which a part has arrived, and return the part's size."""
        try:
            part = bytearray(size) if size <= _OWN_PAGES_BYTES else mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)
        except (MemoryError, OSError):
            self.fail(StatusCode.RESOURCE_EXHAUSTED, f"no memory for a message of {size} bytes")
            return end - start
        self._part, self._received_bytes = part, 0
        return self._fill(part, buffer, start, end)

    def _fill(self, part: bytearray | mmap, buffer: bytes, start: int, end: int) -> int:
        """Take what belongs to the incomplete message, and return its size. Handle the message if it is complete."""
        before, size = self._received_bytes, len(part)
        after = min(size, before + end - start)
        part[before:after] = buffer[start : start + after - before]
        self._received_bytes = after
        if after == size:
            self._part = None
        self._count_kept()
        if after == size:
            self.message(memoryview(part) if size >= _UNCOPIED_BYTES else bytes(part))
            if self._ended:
                self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
        return after - before

    def _count_kept(self) -> None:
        kept = 0 if self._unread is None else self._unread.__alloc__()
        if self._part is not None:
            size = len(self._part)
            kept += max(_OWN_PAGES_BYTES, self._received_bytes) if size > _OWN_PAGES_BYTES else size
        self._kept_bytes = kept

    def _stop(self) -> None:
        self._ended = True
        self._part = self._unread = None
        self._kept_bytes = 0
        if self._deadline:
            self._deadline.cancel()

    def _expire(self) -> None:
        self.fail(StatusCode.DEADLINE_EXCEEDED, "the client's deadline has passed")
        self._connection.outbox.flush_soon()

    def _refuse(self, compressed: int, size: int) -> None:
        if compressed:
            self.fail(StatusCode.UNIMPLEMENTED, "compressed messages are not supported: send them uncompressed")
        else:
            limit = self._services.max_message_bytes
            self.fail(StatusCode.RESOURCE_EXHAUSTED, f"a message of {size} bytes; the limit is {limit}")
        self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
