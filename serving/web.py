"""uvicorn as a part of a server that has its own signals."""

import asyncio
import signal
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serving.certificates import POLL_S, CertificateFolder
from serving.life import Signals


class WebServer:
    """An ASGI application on one socket, or on the socket file `uds`.

    `settings` are uvicorn's. At the end, requests have `grace_s` to finish.
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
            **settings,
        )
        self._server = uvicorn.Server(self._config)

    # uvicorn.Server.serve() would run these three, and catch the signals itself.

    async def start(self) -> None:
        """Serve from now on. SystemExit with uvicorn's status when the application can't start; its log says why."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(self._sockets or None)

    async def run(self) -> None:
        await self._server.main_loop()

    async def end(self, signals: Signals) -> None:
        """Take no new requests, and let open ones finish within the grace; another SIGINT cuts that short."""
        if self._server.started:
            impatience = asyncio.create_task(self._hurry(signals))
            await self._server.shutdown(self._sockets)
            impatience.cancel()
        elif self._config.loaded:
            # An application that is still starting ends as soon as it has.
            await self._server.lifespan.shutdown()
        for listener in self._sockets:
            listener.close()

    async def _hurry(self, signals: Signals) -> None:
        while await signals.get() != signal.SIGINT:
            pass
        self._server.force_exit = True


def _https(certificates: CertificateFolder | None) -> dict[str, Any]:
    """Return the settings that serve by these certificates, and take new ones when they change."""
    if certificates is None:
        return {}

    async def refresh() -> None:
        certificates.refresh()

    return {
        "ssl_context_factory": lambda config, default: certificates.context,
        "callback_notify": refresh,
        "timeout_notify": POLL_S,
    }
