"""HTTP for routes with thousands of requests per second: plain ASGI, without a request object."""

import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from predictor.exceptions import (
    InputError,
    OverloadedError,
    PredictorError,
    TooLargeError,
    TooSlowError,
    UnsupportedError,
)
from serving import bodies
from serving.bodies import BodyError, BodyMemory
from serving.retry_after import BUSY, RETRY_AFTER, retry_after

encode = msgspec.json.Encoder().encode
HttpHeader = tuple[bytes, bytes]
JSON: HttpHeader = (b"content-type", b"application/json")
BINARY: HttpHeader = (b"content-type", b"application/octet-stream")
_ERRORS: dict[int, type[PredictorError]] = {
    400: InputError,
    408: TooSlowError,
    413: TooLargeError,
    503: OverloadedError,
}
# Bodies that arrive at the same time may hold so much together, in bytes.
_memory = BodyMemory(256 << 20)
# An ASGI application that answers the requests of one path.
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, retry_after(status), media_type="application/json")


def error(status: int, message: str) -> Response:
    return json({"error": message}, status)


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of this lower-case name, or None."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """Return the whole body, decompressed if it is gzip or deflate.

    Raise TooLargeError as soon as it is known to exceed the limit, TooSlowError when it does not arrive in time,
    OverloadedError when too many bodies arrive at the same time.
    """
    length = header(scope, b"content-length")
    if length is not None and not length.isdigit():
        raise InputError("content-length: expected a number")
    if length is not None and int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        body = await bodies.read_body(receive, limit_bytes, _memory)
    except BodyError as problem:
        raise _ERRORS[problem.status](str(problem)) from problem
    coding = header(scope, b"content-encoding")
    if coding and coding != b"identity":
        body = _inflate(body, coding, limit_bytes)
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


def _inflate(body: bytes, coding: bytes, limit_bytes: int) -> bytes:
    if coding not in (b"gzip", b"deflate"):
        raise UnsupportedError(f"content-encoding {coding.decode('latin-1'):.50}: only gzip and deflate are supported")
    # zlib: adding 32 to the window's bits detects gzip or zlib by the header. HTTP calls zlib's format deflate.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        inflated = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as problem:
        raise InputError(f"the body is not {coding.decode()}: {problem}") from problem
    if len(inflated) <= limit_bytes and not inflater.eof:
        raise InputError(f"the body is truncated {coding.decode()}")
    return inflated


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {limit_bytes} bytes")


async def send_json(send: Send, body: bytes, status: int = 200) -> None:
    await send_bytes(send, body, (JSON,), status)


async def send_bytes(send: Send, body: bytes, headers: Iterable[HttpHeader], status: int = 200) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-length", b"%d" % len(body)), *((RETRY_AFTER,) if status in BUSY else ())],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
