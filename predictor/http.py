"""HTTP for routes with thousands of requests per second: plain ASGI, without a request object."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from predictor.exceptions import InputError, TooLargeError, TooSlowError, UnsupportedError

encode = msgspec.json.Encoder().encode
HttpHeader = tuple[bytes, bytes]
JSON: HttpHeader = (b"content-type", b"application/json")
BINARY: HttpHeader = (b"content-type", b"application/octet-stream")
# Time for a client to send a whole body, of any size.
BODY_TIMEOUT_S = 10.0
# An ASGI application that answers the requests of one path.
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


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

    Raise TooLargeError as soon as it is known to exceed the limit, TooSlowError when it does not arrive in time.
    """
    length = header(scope, b"content-length")
    if length is not None and not length.isdigit():
        raise InputError("content-length: expected a number")
    if length is not None and int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                body = await _read_rest(body, receive, limit_bytes)
    except TimeoutError as problem:
        raise TooSlowError(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from problem
    coding = header(scope, b"content-encoding")
    if coding and coding != b"identity":
        body = _inflate(body, coding, limit_bytes)
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


async def _read_rest(first: bytes, receive: Receive, limit_bytes: int) -> bytes:
    body = bytearray(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InputError("the connection was closed before the body was complete")
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body"):
            return bytes(body)


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
        "headers": [*headers, (b"content-length", b"%d" % len(body))],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
