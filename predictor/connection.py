"""A uvicorn protocol that closes connections whose request head does not arrive in time.

uvicorn closes connections that are idle after an answer. It waits forever for a first request, and for the rest of a
request head.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Time for a client to send a whole request head.
HEAD_TIMEOUT_S = 10.0


class HeadTimeoutProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a timeout for each request head, from its first byte or from the connection's start."""

    _head_timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timeout = self.loop.call_later(HEAD_TIMEOUT_S, self._close_connection)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timeout is None:
            self._head_timeout = self.loop.call_later(HEAD_TIMEOUT_S, self._close_connection)

    def on_headers_complete(self) -> None:
        self._cancel_timeout()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def _cancel_timeout(self) -> None:
        if self._head_timeout:
            self._head_timeout.cancel()
            self._head_timeout = None

    def _close_connection(self) -> None:
        self._head_timeout = None
        self.transport.close()
