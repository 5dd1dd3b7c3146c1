"""Limits /debug of the metrics port to callers on the same host: its pages tell much, and its profiles cost CPU."""

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

# Not all of 127.0.0.0/8: sidecars of service meshes connect for callers elsewhere from other addresses of it.
_LOCAL = ("127.0.0.1", "::1")
_REFUSAL = (
    "/debug answers only on this host: use kubectl port-forward, or curl localhost in the container. "
    "--metrics-endpoint-auth admits callers by Kubernetes' rules, --debug-access=all admits everyone"
)


class LocalDebug:
    """Middleware: answers 403 to requests for /debug from other hosts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_debug(scope["path"]) or (scope["client"] or ("",))[0] in _LOCAL:
            await self._app(scope, receive, send)
            return
        body = msgspec.json.encode({"error": _REFUSAL})
        await Response(body, 403, media_type="application/json")(scope, receive, send)


def _is_debug(path: str) -> bool:
    return path == "/debug" or path.startswith("/debug/")
