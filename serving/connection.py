"""A uvicorn protocol with limits: connections, the size and time of a request head, and the time of a body.

uvicorn closes connections that are idle after an answer. It waits forever for a first request, for the rest of a
request head or body, and keeps whatever head arrives.
"""

import asyncio
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.retry_after import RETRY_AFTER

# Time for a client to send a whole request head.
HEAD_TIMEOUT_S = 10.0
# Time for a client to send a whole body. The application answers 408 after `serving.bodies.BODY_TIMEOUT_S`; this is
# later, for bodies that nobody reads any more.
BODY_TIMEOUT_S = 11.0
# Largest request head, in bytes. Servers commonly take 8 to 64 KiB.
MAX_HEAD_BYTES = 64 << 10
# Connections of one process that are served. Some more are answered 503, and all beyond these are closed unanswered.
MAX_CONNECTIONS: Final = 4_000
_MORE_CONNECTIONS = 1.25
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. `limit_concurrency` of uvicorn's configuration is the number of connections.

    The head's time counts from its first byte or from the connection's start, the body's from the end of the head.
    """

    _timeout: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn would refuse requests on all connections once there are too many.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_after(HEAD_TIMEOUT_S)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self.app = _refuse
            if len(self.connections) > _MORE_CONNECTIONS * self._max_connections:
                self._close_connection()

    def data_received(self, data: bytes) -> None:
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self._close_connection()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        if self._timeout is None:
            self._close_after(HEAD_TIMEOUT_S)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head_bytes = False, 0
        self._close_after(BODY_TIMEOUT_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._cancel_timeout()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def _close_after(self, seconds: float) -> None:
        self._cancel_timeout()
        self._timeout = self.loop.call_later(seconds, self._close_connection)

    def _cancel_timeout(self) -> None:
        if self._timeout:
            self._timeout.cancel()
            self._timeout = None

    def _close_connection(self) -> None:
        self._cancel_timeout()
        self.transport.close()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close"), RETRY_AFTER]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
