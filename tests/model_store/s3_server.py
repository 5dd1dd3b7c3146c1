"""An S3 server in a thread: moto's, over real HTTP, with a place for a test to meddle with single requests."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Error = tuple[int, str]
# Given a request's method and path, an error to answer with; None lets it pass.
Meddler = Callable[[str, str], Error | None]


def _pass(method: str, path: str) -> None:
    return None


def once(method: str, path: str, act: Callable[[], object] = lambda: None, error: Error | None = None) -> Meddler:
    """Acts, and then errs, at the first request of that method to a path that ends so."""
    acted = threading.Event()

    def meddle(met: str, at: str) -> Error | None:
        if met != method or not at.endswith(path) or acted.is_set():
            return None
        acted.set()
        act()
        return error

    return meddle


class S3Server:
    """`before` is asked before a request has its effect, which an error prevents; `after` when it has had it.

    Both run in the server's threads and may use the server themselves. moto looks at a condition and writes in two
    steps, which its threads would mix: where S3 itself lets one writer win, only a lock makes moto do so.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.calm()

    def calm(self) -> None:
        """Ends all meddling."""
        self.before: Meddler = _pass
        self.after: Meddler = _pass

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        error = self.before(method, path)
        if error:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _answer(error, start_response)
        started: list[Any] = []
        with self._lock:
            body = list(self._app(environ, lambda *arguments: started.extend(arguments)))
        error = self.after(method, path)
        if error:
            return _answer(error, start_response)
        start_response(*started)
        return body


def _answer(error: Error, start_response: Callable[..., Any]) -> Iterable[bytes]:
    status, code = error
    body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    start_response(f"{status} Error", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    def log(self, type: str, message: str, *args: object) -> None:
        """Not a word on requests."""


@contextmanager
def serving() -> Iterator[tuple[S3Server, str]]:
    """The server, and its URL."""
    app = S3Server()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield app, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
