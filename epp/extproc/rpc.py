"""What a gRPC front serves, whichever library or protocol code is under it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol


class StreamHandler(Protocol):
    """One stream's state machine. A front hands it every message in order, and closes it once, however it ends.

    `settle` does what answers need not wait for: a front calls it when it has sent them. It raises nothing.
    """

    def receive(self, message: bytes, /) -> list[bytes] | Awaitable[list[bytes]]: ...

    def settle(self) -> None: ...

    def close(self) -> None: ...


# A method's requests, one when it is unary, and its answers; RpcError ends it with a status.
Method = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, kw_only=True)
class Services:
    """What is served on a port, by path: `/package.Service/Method`."""

    exchanges: Mapping[str, Callable[[], StreamHandler]] = field(default_factory=dict)
    methods: Mapping[str, Method] = field(default_factory=dict)
    max_message_bytes: int = 64 << 20


class StatusCode(IntEnum):
    """The codes of gRPC that this package answers with."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcError(Exception):
    """Ends a stream with a status other than OK; the text is told to the client."""

    def __init__(self, status: StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
