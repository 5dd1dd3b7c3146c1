"""Exchanges for tests of the fronts. The messages that they receive are commands to them."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from epp.extproc.rpc import Message, RpcClient, RpcError, StatusCode

COMMANDS = (b"junk", b"fail", b"none", b"twice", b"later", b"wait", b"give up")


@dataclass
class Book:
    """Counts the events of a test's exchanges, and keeps their messages."""

    opened: int = 0
    closed: int = 0
    settled: int = 0
    uncopied: int = 0
    received: list[bytes] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)
    # Messages that begin with `wait` are answered once this is set.
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def new_exchange(self, client: RpcClient) -> "Echo":
        self.opened += 1
        return Echo(self)


class Echo:
    """Answers a message with the same message, but obeys a message that begins with one of COMMANDS."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._open = True
        # Any message that isn't empty counts as the request's headers.
        self.has_request = False
        self.held_bytes = 0

    def begin_within(self, traceparent: str) -> None:
        self._book.traceparents.append(traceparent)

    def receive(self, message: Message, waited_s: float = 0.0) -> list[bytes] | Awaitable[list[bytes]]:
        self._book.uncopied += isinstance(message, memoryview)
        message = bytes(message)
        assert self._open, "a message after the end"
        self._book.received.append(message)
        self._book.waits_s.append(waited_s)
        self.has_request = self.has_request or bool(message)
        if message == b"junk":
            raise DecodeError("not a message")
        if message == b"fail":
            raise ValueError("on command")
        if message == b"give up":
            raise RpcError(StatusCode.UNAVAILABLE, "overloaded")
        if message == b"none":
            return []
        if message.startswith(b"twice"):
            return [message, message]
        if message.startswith((b"later", b"wait")):
            return self._later(message)
        return [message]

    def settle(self) -> None:
        assert self._open, "settled after the end"
        self._book.settled += 1

    async def _later(self, message: bytes) -> list[bytes]:
        if message.startswith(b"wait"):
            await self._book.released.wait()
        await asyncio.sleep(0)
        if message == b"later fail":
            raise ValueError("on command")
        return [message]

    def close(self) -> None:
        assert self._open, "closed twice"
        self._open = False
        self._book.closed += 1
