"""Who may open the live page: callers on this host, and callers elsewhere who bring a token."""

from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.token_file import TokenFile

_COOKIE: Final = "headroom-live"
_DAY_S = 24 * 3600
_MISSING = "a token is needed: open /live/?token=TOKEN once, or send the header 'authorization: Bearer TOKEN'"
_ONLY_HERE = (
    "the live page answers only on this host: use kubectl port-forward or ssh -L, or start with --live-page-token-file"
)
_OTHER_NAME = "the live page answers only to the names localhost and 127.0.0.1: a page of another site may have asked"
_HEADERS: Final = (
    # Nothing of the page comes from elsewhere. uPlot and the page set styles of elements by script.
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class LiveAccess:
    """Middleware. Without `tokens`, only callers on this host are admitted.

    A browser elsewhere brings the token once in the address, and keeps it in a cookie that scripts can't read.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile | None) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        if self._tokens is not None and "token" in request.query_params:
            await self._kept_in_a_cookie(request)(scope, receive, _with_headers(send))
            return
        refusal = self._refusal(request)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
            return
        status, reason = refusal
        body = msgspec.json.encode({"error": reason})
        await Response(body, status, media_type="application/json")(scope, receive, _with_headers(send))

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        if self._tokens is not None and self._admits(request.headers, self._tokens):
            return None
        if not _is_local(request.client.host if request.client else ""):
            return (401, _MISSING) if self._tokens else (403, _ONLY_HERE)
        # A name that points to this host is how pages of other sites would read this one.
        return None if _is_local(request.url.hostname or "") else (403, _OTHER_NAME)

    def _admits(self, headers: Headers, tokens: TokenFile) -> bool:
        given = headers.get("authorization")
        if given is None:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
            given = f"Bearer {cookie.value}" if cookie else ""
        return tokens.admits(given.encode())

    def _kept_in_a_cookie(self, request: Request) -> Response:
        """Take the token out of the address, which browsers remember and show."""
        rest = urlencode([(name, value) for name, value in parse_qsl(request.url.query) if name != "token"])
        answer = RedirectResponse(request.url.path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(
            _COOKIE,
            request.query_params["token"],
            max_age=_DAY_S,
            path="/live",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer


def _is_local(host: str) -> bool:
    # Not all of 127.0.0.0/8: sidecars of service meshes connect for callers elsewhere from other addresses of it.
    return host in ("127.0.0.1", "::1", "localhost")


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return send_with_headers
