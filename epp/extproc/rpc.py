"""The interface between the gRPC fronts and the services that they serve."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

# A large message is passed without copying it.
Message = bytes | memoryview


class StreamHandler(Protocol):
    """The state machine of one stream. A front passes every message in order, and calls `close` once at the end.

    A front calls `settle` when it has sent the answers, for work that they need not wait for. `settle` raises nothing.
    `has_request` is True once the messages carried an HTTP request. Other streams are no use to anybody. `held_bytes`
    is what is kept of the messages so far. `waited_s` is how long a message waited in the front, if the front knows.
    `receive` may raise RpcError to end the stream with a status.
    """

    @property
    def has_request(self) -> bool: ...

    @property
    def held_bytes(self) -> int: ...

    def receive(self, message: Message, waited_s: float = 0.0, /) -> list[bytes] | Awaitable[list[bytes]]: ...

    def settle(self) -> None: ...

    def begin_within(self, traceparent: str, /) -> None: ...

    def close(self) -> None: ...


class RpcClient(Protocol):
    """Stands for a client while its connection is open. What belongs to the client can be kept by this object."""

    @property
    def address(self) -> str: ...


# Takes the requests (one if unary) and yields the answers. RpcError ends the method with a status.
Method = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of a port, by path: `/package.Service/Method`. `exchanges` make the handler of a client's stream.

    `count_flood` is called with the kind of a flood for which a connection was closed. `max_buffered_bytes` is what all
    streams of the port may occupy, `max_connections` how many clients it admits at once.
    """

    exchanges: Mapping[str, Callable[[RpcClient], StreamHandler]] = field(default_factory=dict)
    methods: Mapping[str, Method] = field(default_factory=dict)
    max_message_bytes: int = 64 << 20
    max_buffered_bytes: int = 512 << 20
    max_connections: int = 1_000
    count_flood: Callable[[str], None] = lambda kind: None


class StatusCode(IntEnum):
    """The gRPC status codes that this package uses."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcError(Exception):
    """Ends a stream with a status other than OK. The client gets the text."""

    def __init__(self, status: StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
