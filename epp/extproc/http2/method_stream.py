"""Serves a gRPC method by a coroutine of its own for each call."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.message import DecodeError

from epp.extproc.http2.connection import Connection
from epp.extproc.http2.message_stream import UNSENT_BYTES, MessageStream
from epp.extproc.http2.statuses import FAILED
from epp.extproc.rpc import Message, Method, RpcError, Services, StatusCode

logger = logging.getLogger("headroom.epp.extproc")


class MethodStream(MessageStream):
    """Runs a method in its own task."""

    __slots__ = ("_drained", "_messages", "_method", "_task", "_waiting_bytes")

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
        # The size of the message that waits for the method.
        self._waiting_bytes = 0

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self._waiting_bytes

    def opened(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    def must_wait(self) -> bool:
        return not self._messages.empty()

    def message(self, message: Message) -> None:
        self._waiting_bytes = len(message)
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
            self.end(StatusCode.INTERNAL, FAILED)
        self._connection.outbox.flush_soon()

    async def _requests(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            self._waiting_bytes = 0
            yield message
            self.read_on()

    async def _send(self, message: bytes) -> None:
        self._connection.control_budget.restore()
        self.answer(message)
        self._connection.streams.account(self)
        self._connection.outbox.flush_soon()
        while self.queued_bytes > UNSENT_BYTES:
            self._drained.clear()
            await self._drained.wait()
