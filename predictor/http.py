"""Small pieces of HTTP that every route needs."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from predictor.exceptions import InputError

_encode = msgspec.json.Encoder().encode


class TooLargeError(Exception):
    """A request's body is over the limit."""


def json(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


def error(status: int, message: str) -> Response:
    return json({"error": message}, status)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; TooLargeError as soon as it is known to be over the limit."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit():
        raise InputError("content-length: expected a number")
    if int(length) > limit_bytes:
        raise TooLargeError(f"the body is larger than {limit_bytes} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLargeError(f"the body is larger than {limit_bytes} bytes")
    return bytes(body)
