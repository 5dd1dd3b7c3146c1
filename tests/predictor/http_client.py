"""The standard library's HTTP client, in the three shapes that tests need."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


def call(url: str, body: object = None) -> tuple[int, Any]:
    """Status and decoded answer of a GET, or of a POST when there is a body (bytes are sent as they are)."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for a condition; AssertionError when it doesn't come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
