"""gRPC over an HTTP/2 stream: reads messages from DATA frames, and sends answers and statuses back.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from struct import Struct
from typing import Any, Final
from urllib.parse import quote

from google.protobuf.message import DecodeError

from epp.extproc.http2.budget import Flood
from epp.extproc.http2.connection import Connection
from epp.extproc.http2.frames import END_HEADERS, HEADERS, frame
from epp.extproc.http2.headers import HeaderBlock, write_headers
from epp.extproc.http2.stream import Stream
from epp.extproc.rpc import Message, Method, RpcError, Services, StatusCode, StreamHandler

logger = logging.getLogger("headroom.epp.extproc")

_PREFIX: Final = Struct(">BI")
_PREFIX_BYTES: Final = _PREFIX.size
# A stream's further messages wait while more than this much of its answers is unsent.
_UNSENT_BYTES: Final = 1 << 20
# Messages of this size are passed on as they were collected. A copy of 32 MiB takes 10 ms or more.
_UNCOPIED_BYTES: Final = 1 << 18
# Messages of one stream that are handled before other streams and connections have their turn.
_MESSAGES_AT_ONCE: Final = 32
_FAILED: Final = "the server failed; its log says why"
_UNESCAPED: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_HEADERS: Final = (
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-accept-encoding", "identity"),
)
_ANSWER_HEADERS: Final = write_headers(_HEADERS)
_OK: Final = write_headers([("grpc-status", "0")])
_WRONG_METHOD: Final = write_headers([(":status", "405"), ("allow", "POST")])
_WRONG_CONTENT: Final = write_headers([(":status", "415")])


def new_stream(
    services: Services, tasks: set[asyncio.Future[Any]], connection: Connection, stream_id: int, headers: HeaderBlock
) -> Stream:
    """Return the stream that serves a request. `tasks` collects the tasks that run for streams."""
    if headers.method != "POST":
        return _RefusedStream(connection, stream_id, _WRONG_METHOD)
    if not _is_grpc(headers.content_type):
        return _RefusedStream(connection, stream_id, _WRONG_CONTENT)
    if new_exchange := services.exchanges.get(headers.path):
        try:
            exchange = new_exchange()
        except Exception:
            logger.exception("can't create an exchange")
            return _RefusedStream(connection, stream_id, _trailers_only(StatusCode.INTERNAL, _FAILED))
        stream: _MessageStream = _ExchangeStream(connection, stream_id, services, tasks, exchange)
    elif method := services.methods.get(headers.path):
        stream = _MethodStream(connection, stream_id, services, tasks, method)
    else:
        text = f"{headers.path} is not served here"
        return _RefusedStream(connection, stream_id, _trailers_only(StatusCode.UNIMPLEMENTED, text))
    if headers.timeout_s is not None:
        stream.end_after(headers.timeout_s)
    return stream


def _is_grpc(content_type: str) -> bool:
    return content_type == "application/grpc" or content_type.startswith(("application/grpc+", "application/grpc;"))


def _trailers(status: StatusCode, text: str) -> bytes:
    return write_headers([("grpc-status", str(int(status))), ("grpc-message", quote(text, safe=_UNESCAPED))])


def _trailers_only(status: StatusCode, text: str) -> bytes:
    return _ANSWER_HEADERS + _trailers(status, text)


class _RefusedStream(Stream):
    """Answers the request's headers with a refusal, and ignores the rest."""

    __slots__ = ("_block", "_connection")

    def __init__(self, connection: Connection, stream_id: int, block: bytes) -> None:
        super().__init__(stream_id)
        self._connection = connection
        self._block = block

    def opened(self) -> None:
        self._connection.control_budget.spend(Flood.UNSERVED_REQUEST)
        self._connection.outbox.end(self, self._block)


class _MessageStream(Stream):
    """Splits the received bytes into messages. Subclasses answer them."""

    __slots__ = (
        "_connection",
        "_deadline",
        "_ended",
        "_headers_sent",
        "_needed",
        "_part",
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
        # The received part of an unfinished message, with its prefix, and the message's least length in bytes.
        self._part: bytearray | None = None
        self._needed = 0
        # The size of whole messages that wait to be handled.
        self._waiting_bytes = 0

    @property
    def held_bytes(self) -> int:
        part = 0 if self._part is None else self._part.__alloc__()
        return part + self._waiting_bytes + self.queued_bytes

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

    def data_received(self, buffer: bytes | bytearray, start: int, end: int) -> None:
        if self.trailers is not None:
            return
        is_own = False
        if self._part is not None:
            self._part += memoryview(buffer)[start:end]
            if len(self._part) < self._needed:
                return
            is_own = True
            buffer, start, end, self._part = self._part, 0, len(self._part), None
        view, needed, count = memoryview(buffer), _PREFIX_BYTES, 0
        while end - start >= _PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(buffer, start)
            if compressed or size > self._services.max_message_bytes:
                self._refuse(compressed, size)
                return
            needed = _PREFIX_BYTES + size
            if needed > end - start:
                break
            if not size:
                self._connection.control_budget.spend(Flood.EMPTY_MESSAGE)
            message = view[start + _PREFIX_BYTES : start + needed]
            self.message(message if is_own and size >= _UNCOPIED_BYTES else message.tobytes())
            if self._ended:
                self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
                return
            start, needed, count = start + needed, _PREFIX_BYTES, count + 1
            if count == _MESSAGES_AT_ONCE:
                self.rest()
        if start < end:
            self._part, self._needed = bytearray(view[start:end]), needed

    def peer_ended(self) -> None:
        if self.trailers is not None:
            return
        if self._part is not None:
            self.fail(StatusCode.INTERNAL, "the last message is incomplete")
            self._connection.control_budget.spend(Flood.FAULTY_MESSAGE)
        else:
            self.messages_ended()

    def answer(self, message: bytes) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.outbox.control(frame(HEADERS, END_HEADERS, self.id, _ANSWER_HEADERS))
        self._connection.outbox.data(self, _PREFIX.pack(0, len(message)), message)

    def end(self, status: StatusCode, text: str = "") -> None:
        """End the stream with a status, after its queued data. Has no effect if the stream has ended."""
        if self._ended:
            return
        self._stop()
        if self._headers_sent:
            self._connection.outbox.end(self, _trailers(status, text) if status else _OK)
        else:
            self._connection.outbox.end(self, _trailers_only(status, text))

    def fail(self, status: StatusCode, text: str) -> None:
        """End the stream after an error of the client or of this server."""
        self.busy = True
        self.end(status, text)

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


class _ExchangeStream(_MessageStream):
    """Passes messages to an exchange one after the other, and waits for each answer."""

    __slots__ = ("_exchange", "_has_request", "_inbox", "_settling", "_task")

    def __init__(
        self,
        connection: Connection,
        stream_id: int,
        services: Services,
        tasks: set[asyncio.Future[Any]],
        exchange: StreamHandler,
    ) -> None:
        super().__init__(connection, stream_id, services, tasks)
        self._exchange: StreamHandler | None = exchange
        self._has_request = False
        self._inbox: deque[Message] | None = None
        self._task: asyncio.Future[list[bytes]] | None = None
        self._settling = False

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + (self._exchange.held_bytes if self._exchange else 0)

    def message(self, message: Message) -> None:
        if not self.busy:
            self._receive(message)
            return
        self._waiting_bytes += len(message)
        if self._inbox is None:
            self._inbox = deque((message,))
        else:
            self._inbox.append(message)

    def messages_ended(self) -> None:
        if not (self._task or self._inbox):
            self.end(StatusCode.OK)
            self._close()

    def rest(self) -> None:
        if not self.busy:
            self.busy = True
            self._connection.go_on_later(self)

    def go_on(self) -> None:
        self._go_on()

    def drained(self) -> None:
        self._go_on()

    def aborted(self) -> None:
        self._stop()
        self._close()

    def fail(self, status: StatusCode, text: str) -> None:
        super().fail(status, text)
        self._close()

    def _receive(self, message: Message) -> None:
        if self._exchange is None:
            return
        try:
            answers = self._exchange.receive(message)
        except Exception as error:
            self._failed(error)
            return
        # A flood could be made of other messages, such as empty ones and pieces of a body.
        if answers if self._has_request else self._exchange.has_request:
            self._has_request = True
            self._connection.control_budget.restore()
        if isinstance(answers, list):
            self._answers(answers)
        else:
            self.busy = True
            self._task = asyncio.ensure_future(answers)
            self._tasks.add(self._task)
            self._task.add_done_callback(self._awaited)

    def _answers(self, answers: list[bytes]) -> None:
        for answer in answers:
            self.answer(answer)
        if self.queued_bytes > _UNSENT_BYTES:
            self.busy = True
        if not self._settling:
            self._settling = True
            self._connection.after_flush(self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._exchange:
            self._exchange.settle()

    def _awaited(self, task: asyncio.Future[list[bytes]]) -> None:
        self._tasks.discard(task)
        self._task = None
        if self._ended:
            self._close()
            return
        self._connection.outbox.flush_soon()
        if error := asyncio.CancelledError() if task.cancelled() else task.exception():
            self._failed(error)
        else:
            self._answers(task.result())
            self._go_on()

    def _go_on(self) -> None:
        """Process the waiting messages until one has to wait again."""
        self.busy = self._ended or self._task is not None or self.queued_bytes > _UNSENT_BYTES
        count = 0
        while self._inbox and not self.busy:
            message = self._inbox.popleft()
            self._waiting_bytes -= len(message)
            self._receive(message)
            count += 1
            if count == _MESSAGES_AT_ONCE:
                self.rest()
        if self._ended:
            return
        self._connection.account(self)
        if self.peer_done and self._part is None:
            self.messages_ended()
        elif not self.busy:
            self._connection.credit(self)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, DecodeError):
            self.fail(StatusCode.INVALID_ARGUMENT, f"not a message of this method: {error}")
        else:
            logger.error("an exchange failed", exc_info=error)
            self.fail(StatusCode.INTERNAL, _FAILED)

    def _close(self) -> None:
        """Close the exchange. Cancel an unfinished answer first; its end then closes the exchange."""
        if self._task:
            self._task.cancel()
        elif self._exchange:
            exchange, self._exchange = self._exchange, None
            try:
                exchange.close()
            except Exception:
                logger.exception("an exchange failed to close")


class _MethodStream(_MessageStream):
    """Runs a method in its own task."""

    __slots__ = ("_drained", "_messages", "_method", "_task")

    def __init__(
        self,
        connection: Connection,
        stream_id: int,
        services: Services,
        tasks: set[asyncio.Future[Any]],
        method: Method,
    ) -> None:
        super().__init__(connection, stream_id, services, tasks)
        self._method = method
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    def message(self, message: Message) -> None:
        self._waiting_bytes += len(message)
        self._messages.put_nowait(bytes(message))
        self.busy = True

    def messages_ended(self) -> None:
        self._messages.put_nowait(None)

    def drained(self) -> None:
        self._drained.set()

    def aborted(self) -> None:
        self._stop()
        if self._task:
            self._task.cancel()

    def fail(self, status: StatusCode, text: str) -> None:
        super().fail(status, text)
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with aclosing(self._method(self._requests())) as answers:
                async for answer in answers:
                    await self._send(answer)
            self.end(StatusCode.OK)
        except RpcError as error:
            self.end(error.status, str(error))
        except DecodeError as error:
            self.end(StatusCode.INVALID_ARGUMENT, f"not a message of this method: {error}")
        except Exception:
            logger.exception("a method failed")
            self.end(StatusCode.INTERNAL, _FAILED)
        self._connection.outbox.flush_soon()

    async def _requests(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            self._waiting_bytes -= len(message)
            yield message
            if not self._messages.empty():
                await asyncio.sleep(0)
            self.busy = not self._messages.empty()
            self._connection.account(self)
            self._connection.credit(self)

    async def _send(self, message: bytes) -> None:
        self._connection.control_budget.restore()
        self.answer(message)
        self._connection.account(self)
        self._connection.outbox.flush_soon()
        while self.queued_bytes > _UNSENT_BYTES:
            self._drained.clear()
            await self._drained.wait()
