"""A server in a thread of the test's process, and calls to it with the standard library's HTTP client."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

# Seconds that a test waits. A quiet machine needs a few; a busy machine takes ten times as long.
PATIENCE_S: Final = 90.0


@contextmanager
def live(
    app: ASGIApp, http: Any = "auto", limit_concurrency: int | None = None, certificate: Path | None = None
) -> Iterator[str]:
    """Serve an application on a free port; yield its URL. `certificate` is a folder of tls.crt and tls.key."""
    settings = uvicorn.Config(
        app,
        port=0,
        http=http,
        log_level="warning",
        timeout_graceful_shutdown=1,
        limit_concurrency=limit_concurrency,
        ssl_certfile=certificate and certificate / "tls.crt",
        ssl_keyfile=certificate and certificate / "tls.key",
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the application has not started"
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def call(url: str, body: object = None) -> tuple[int, Any]:
    """Send a GET, or a POST if there is a body, and return the status and the decoded answer.

    A body of bytes is sent unchanged; any other is encoded as JSON.
    """
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait for a condition. Raise AssertionError when it doesn't come true in time."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.01
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(pause_s)
        # Leave the server time to do the work that the caller waits for.
        pause_s = min(1.2 * pause_s, 0.1)
