"""A keep-alive HTTP/1.1 connection to a metrics server: one request at a time."""

import asyncio
from typing import Protocol, cast

import httptools

from epp.exceptions import ScrapeError
from epp.scraping.page_access import TOKEN_FLAG

# Model servers' pages have 50 to 300 kB. Searching a page of 2 MiB takes 2 ms.
MAX_ANSWER_BYTES = 2 << 20
# The parser joins the pieces of a header, which takes a time quadratic in its size.
_MAX_HEADER_BYTES = 1 << 16


class PageListener(Protocol):
    """The owner of a connection. It hears a page or an error for each request, and the connection's begin and end."""

    def connection_began(self) -> None: ...

    def page_came(self, page: bytes) -> None: ...

    def page_failed(self, error: ScrapeError, fresh: bool) -> None:
        """`fresh`: the connection was new, or part of an answer had come, so asking again would not help."""

    def connection_ended(self) -> None:
        """Hear that the connection takes no more requests. This comes before the page or the error of the last one."""


class PageConnection(asyncio.Protocol):
    """A protocol for `loop.create_connection`, which asks for one page when it is connected.

    Call `ask` after each answer, and `close` at any time.

    At some thousand pages a second, a client library's general features cost several times as much as the page itself.
    llhttp does the parsing. Redirects are errors, and the request asks for no compression.
    """

    def __init__(self, request: bytes, listener: PageListener) -> None:
        self._request = request
        self._listener: PageListener | None = listener
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answers = 0
        self._awaiting = True
        self._begin()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None  # noqa: S101 - something was answered
        self._begin()
        self._request = request
        self._awaiting = True
        self._transport.write(self._request)

    def close(self) -> None:
        """End the connection at once; the listener hears nothing more."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()

    def _begin(self) -> None:
        self._body: list[bytes] = []
        self._bytes_came = 0
        self._has_headers = self._has_length = False
        self._complete = self._surplus = self._keep_alive = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._listener is None:
            self._transport.abort()
            return
        self._listener.connection_began()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._awaiting:
            self._finish(None)
            return
        self._bytes_came += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._finish(ScrapeError("page", f"the answer is no HTTP: {error}"))
            return
        if not self._has_headers and self._bytes_came > _MAX_HEADER_BYTES:
            self._finish(ScrapeError("page", f"the headers are larger than {_MAX_HEADER_BYTES} bytes"))
        elif self._bytes_came > MAX_ANSWER_BYTES:
            self._finish(ScrapeError("page", f"the answer is larger than {MAX_ANSWER_BYTES} bytes"))
        elif self._surplus:
            self._finish(ScrapeError("page", "more came than one answer"))
        elif self._complete:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._awaiting:
            self._finish(None)
        elif not self._bytes_came:
            self._finish(
                ScrapeError("connect", f"the connection ended without an answer{_because(exc)}{self._scheme_hint()}")
            )
        elif exc is None and self._has_headers and not self._has_length:
            # HTTP/1.0 ends a page of unknown length by ending the connection.
            self._deliver()
        else:
            self._finish(ScrapeError("page", f"the connection ended within the answer{_because(exc)}"))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        self._has_headers = True

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            # An interim answer, such as 103 Early Hints. The final one follows.
            self._has_headers = self._has_length = False
            self._body = []
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    # The end of a request

    def _deliver(self) -> None:
        status = self._parser.get_status_code()
        page = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._awaiting = False
        self._answers += 1
        listener = self._listener
        if not self._keep_alive:
            self._finish(None)
        if listener is None:
            return
        if status == 200:
            listener.page_came(page)
        else:
            listener.page_failed(ScrapeError("status", f"HTTP status {status}{self._status_hint(status)}"), True)

    def _finish(self, error: ScrapeError | None) -> None:
        """End the connection, and tell the listener; if a page is awaited, tell why it did not come."""
        listener, fresh = self._listener, self._bytes_came > 0 or self._answers == 0
        self._awaiting = False
        self.close()
        if listener is None:
            return
        listener.connection_ended()
        if error is not None:
            listener.page_failed(error, fresh)

    def _status_hint(self, status: int) -> str:
        """Return which flag helps against the status, if any does."""
        if status in (401, 403):
            has_token = b"\r\nAuthorization: " in self._request
            refused = f": the server refuses the token of {TOKEN_FLAG}"
            return refused if has_token else f": {TOKEN_FLAG} names a file with the server's key"
        # Many servers answer so to plain HTTP at a port of TLS.
        return self._scheme_hint() if status == 400 else ""

    def _scheme_hint(self) -> str:
        is_tls = self._transport is not None and self._transport.get_extra_info("ssl_object") is not None
        return "" if is_tls else "; if the server speaks TLS, set --model-server-metrics-scheme=https"


def _because(error: Exception | None) -> str:
    return f": {error}" if error else ""
