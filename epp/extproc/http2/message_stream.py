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
MESSAGES_AT_ONCE: Final = 32
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
        "_part",
        "_part_bytes",
        "_prefix",
        "_received_bytes",
        "_services",
        "_tasks",
        "_waiting_bytes",
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
        # The received part of a message's prefix.
        self._prefix = b""
        # Room for an incomplete message, how much of the message has arrived, and what the room occupies.
        self._part: bytearray | mmap | None = None
        self._received_bytes = 0
        self._part_bytes = 0
        # The size of whole messages that wait to be handled.
        self._waiting_bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._part_bytes + self._waiting_bytes + self.queued_bytes

    @property
    def is_between_messages(self) -> bool:
        return self._part is None and not self._prefix

    def end_after(self, timeout_s: float) -> None:
        """End the stream when the client's deadline passes, even if the client sends nothing then."""
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._expire)

    def message(self, message: Message) -> None:
        """Handle a whole message."""
        raise NotImplementedError

    def messages_ended(self) -> None:
        """Handle the end of the messages."""
        raise NotImplementedError

    def rest(self) -> None:
        """Let further messages wait until other streams and connections have had their turn."""

    def data_received(self, buffer: bytes, start: int, end: int) -> None:
        if self.trailers is not None:
            return
        if self._part is not None:
            start += self._fill(self._part, buffer, start, end)
            if self._ended:
                return
        elif self._prefix:
            buffer = self._prefix + buffer[start:end]
            start, end, self._prefix = 0, len(buffer), b""
        count = 0
        while end - start >= _PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(buffer, start)
            if compressed or size > self._services.max_message_bytes:
                self._refuse(compressed, size)
                return
            start += _PREFIX_BYTES
            if size > end - start:
                self._begin(size, buffer, start, end)
                return
            if not size:
                self._connection.control_budget.spend(Flood.EMPTY_MESSAGE)
            self.message(buffer[start : start + size])
            if self._ended:
                self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
                return
            start, count = start + size, count + 1
            if count == MESSAGES_AT_ONCE:
                self.rest()
        self._prefix = buffer[start:end]

    def peer_ended(self) -> None:
        if self.trailers is not None:
            return
        if self.is_between_messages:
            self.messages_ended()
        else:
            self.fail(StatusCode.INTERNAL, "the last message is incomplete")
            self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)

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

    def _begin(self, size: int, buffer: bytes, start: int, end: int) -> None:
        """Make room for a message of this size, of which a part has arrived."""
        if size > _OWN_PAGES_BYTES:
            self._part = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)
        else:
            self._part = bytearray(size)
        self._received_bytes = 0
        self._fill(self._part, buffer, start, end)

    def _fill(self, part: bytearray | mmap, buffer: bytes, start: int, end: int) -> int:
        """Take what belongs to the incomplete message, handle the message when it is complete, and return the size."""
        before, size = self._received_bytes, len(part)
        after = min(size, before + end - start)
        part[before:after] = buffer[start : start + after - before]
        self._received_bytes = after
        if after < size:
            self._part_bytes = max(_OWN_PAGES_BYTES, after) if size > _OWN_PAGES_BYTES else size
            return after - before
        self._part, self._part_bytes = None, 0
        self.message(memoryview(part) if size >= _UNCOPIED_BYTES else bytes(part))
        if self._ended:
            self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
        return after - before

    def _stop(self) -> None:
        self._ended = True
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
