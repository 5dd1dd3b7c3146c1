"""moto's S3 server in a thread, over real HTTP, with hooks that let a test interfere with single requests."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Error = tuple[int, str]
# Takes a request's method and path; returns the error to answer with, or None to let the request pass.
Hook = Callable[[str, str], Error | None]


def _pass(method: str, path: str) -> None:
    return None


def once(method: str, path: str, act: Callable[[], object] = lambda: None, error: Error | None = None) -> Hook:
    """Return a hook that calls `act` and answers `error` at the first request with this method and path ending."""
    acted = threading.Event()

    def hook(request_method: str, request_path: str) -> Error | None:
        if request_method != method or not request_path.endswith(path) or acted.is_set():
            return None
        acted.set()
        act()
        return error

    return hook


class S3Server:
    """moto's application with two hooks: `before` runs before a request takes effect, `after` once it has.

    An error from `before` prevents the effect. Both hooks run in the server's threads and may use the server.
    S3 lets exactly one conditional writer win. moto checks and writes in two steps, so a lock keeps requests apart.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.remove_hooks()

    def remove_hooks(self) -> None:
        """Remove both hooks."""
        self.before: Hook = _pass
        self.after: Hook = _pass

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
        """Log nothing."""


@contextmanager
def serving() -> Iterator[tuple[S3Server, str]]:
    """Run the server; yield it and its URL."""
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
