"""uvicorn as a part of a server that handles signals itself."""

import asyncio
import signal
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serving.certificates import CertificateFolder
from serving.connection import MAX_CONNECTIONS, LimitedProtocol
from serving.life import Signals
from serving.watched_file import POLL_S


class WebServer:
    """Serves an ASGI application on one socket, or on the socket file `uds`.

    `settings` are uvicorn's. At the end, open requests have `grace_s` seconds to finish.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket | None = None,
        certificates: CertificateFolder | None = None,
        *,
        grace_s: int,
        **settings: Any,
    ) -> None:
        self._sockets = [listener] if listener else []
        self._config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=grace_s,
            **_https(certificates),
            **{"http": LimitedProtocol, "limit_concurrency": MAX_CONNECTIONS, **settings},
        )
        self._server = uvicorn.Server(self._config)

    # uvicorn.Server.serve() would run these three steps too, but it handles signals itself.

    async def start(self) -> None:
        """Begin to serve. If the application can't start, uvicorn logs why and raises SystemExit."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(self._sockets or None)

    async def run(self) -> None:
        await self._server.main_loop()

    async def end(self, signals: Signals) -> None:
        """Accept no new requests, and let open ones finish within the grace period. Another SIGINT ends it at once."""
        if self._server.started:
            interrupted = asyncio.create_task(self._force_exit_on_interrupt(signals))
            await self._server.shutdown(self._sockets)
            interrupted.cancel()
        elif self._config.loaded:
            # The application is still starting; it ends as soon as it has started.
            await self._server.lifespan.shutdown()
        for listener in self._sockets:
            listener.close()

    async def _force_exit_on_interrupt(self, signals: Signals) -> None:
        while await signals.get() != signal.SIGINT:
            pass
        self._server.force_exit = True


def _https(certificates: CertificateFolder | None) -> dict[str, Any]:
    """Return uvicorn's settings to serve with these certificates and to reload them when they change."""
    if certificates is None:
        return {}

    async def refresh() -> None:
        certificates.refresh()

    return {
        "ssl_context_factory": lambda config, default: certificates.context,
        "callback_notify": refresh,
        "timeout_notify": POLL_S,
    }
