"""Admits only callers of a server that send one of its bearer tokens."""

import ipaddress
import json
import logging
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.listening import Address
from serving.token_file import REFUSAL, TokenFile

# Paths that need no token: probes and Prometheus have none, and metrics hold no prompts.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def warn_if_open(address: Address, logger: logging.Logger) -> None:
    """Warn if a server without tokens can be reached from other machines."""
    if not _is_loopback(address.host):
        logger.warning("%s asks callers for no token, so whoever reaches it may use it: set --token-file", address)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guarded(app: ASGIApp, tokens: TokenFile | None, open_paths: frozenset[str], key: str) -> ASGIApp:
    """Return the application behind the tokens, if there are any."""
    return BearerTokens(app, tokens, open_paths, key) if tokens else app


class BearerTokens:
    """Middleware: answers 401 to requests without a token, except for `open_paths`.

    `key` names the reason in the JSON body, as the application names its own.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile, open_paths: frozenset[str], key: str) -> None:
        self._app = app
        self._tokens = tokens
        self._open_paths = open_paths
        self._body = json.dumps({key: REFUSAL}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._admits(scope):
            await self._app(scope, receive, send)
            return
        refusal = Response(self._body, 401, {"www-authenticate": "Bearer"}, media_type="application/json")
        await refusal(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and self._tokens.admits(given[0])
