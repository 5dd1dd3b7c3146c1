"""Serves a bidirectional gRPC method by an exchange, which answers one message after the other."""

import asyncio
import logging
from typing import Any

from google.protobuf.message import DecodeError

from epp.extproc.http2.connection import Connection
from epp.extproc.http2.message_stream import UNSENT_BYTES, MessageStream
from epp.extproc.http2.statuses import FAILED
from epp.extproc.rpc import Message, RpcError, Services, StatusCode, StreamHandler

logger = logging.getLogger("headroom.epp.extproc")


class ExchangeStream(MessageStream):
    """Passes messages to an exchange one after the other, and waits for each answer."""

    __slots__ = ("_exchange", "_has_request", "_settling", "_task")

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
        self._task: asyncio.Future[list[bytes]] | None = None
        self._settling = False

    @property
    def held_bytes(self) -> int:
        held = self._kept_bytes + self.queued_bytes
        return held + self._exchange.held_bytes if self._exchange else held

    def must_wait(self) -> bool:
        return self._task is not None or self.queued_bytes > UNSENT_BYTES

    def message(self, message: Message) -> None:
        if self._exchange is None:
            return
        turns = self._connection.turns
        try:
            answers = self._exchange.receive(message, turns.waited_s)
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

    def messages_ended(self) -> None:
        if not self._task:
            self.end(StatusCode.OK)
            self._close()

    def drained(self) -> None:
        self.read_on()

    def aborted(self) -> None:
        self._stop()
        self._close()

    def fail(self, status: StatusCode, text: str) -> None:
        super().fail(status, text)
        self._close()

    def _answers(self, answers: list[bytes]) -> None:
        for answer in answers:
            self.answer(answer)
        if self.queued_bytes > UNSENT_BYTES:
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
            self.read_on()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, RpcError):
            # What the client sends before it learns of this is no flood.
            self._connection.control_budget.restore()
            self.fail(error.status, str(error))
        elif isinstance(error, DecodeError):
            self.fail(StatusCode.INVALID_ARGUMENT, f"not a message of this method: {error}")
        else:
            logger.error("an exchange failed", exc_info=error)
            self.fail(StatusCode.INTERNAL, FAILED)

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
