"""Reading of request bodies: bounded in size and time, one by one and together."""

import asyncio
from dataclasses import dataclass

from starlette.types import Receive

# Time for a client to send a whole body, of any size.
BODY_TIMEOUT_S = 10.0


class BodyError(Exception):
    """A body can't be read; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class BodyMemory:
    """The memory of all bodies that are being received. `limit_bytes` is for all of them together."""

    limit_bytes: int
    held_bytes: int = 0


async def read_body(receive: Receive, limit_bytes: int, memory: BodyMemory) -> bytes:
    """Return the whole body.

    Raise BodyError: 400 if the client goes away, 408 if the body does not arrive in time, 413 if it exceeds the limit,
    503 if bodies that arrive at the same time exceed the memory.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _aborted()
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                body = await _read_rest(body, receive, limit_bytes, memory)
    except TimeoutError as problem:
        raise BodyError(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from problem
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


async def _read_rest(first: bytes, receive: Receive, limit_bytes: int, memory: BodyMemory) -> bytes:
    body, held_bytes = bytearray(first), 0
    try:
        while True:
            memory.held_bytes += len(body) - held_bytes
            held_bytes = len(body)
            if memory.held_bytes > memory.limit_bytes:
                raise BodyError(503, "too many large bodies arrive at the same time")
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _aborted()
            body += message.get("body", b"")
            if not message.get("more_body"):
                return bytes(body)
    finally:
        memory.held_bytes -= held_bytes


def _aborted() -> BodyError:
    return BodyError(400, "the connection was closed before the body was complete")


def _too_large(limit_bytes: int) -> BodyError:
    return BodyError(413, f"the body is larger than {limit_bytes} bytes")
