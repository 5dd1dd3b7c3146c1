"""Access to the metrics: the API server names the bearer token's user, and its RBAC rules decide."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from epp.kubernetes.client import Client
from epp.kubernetes.exceptions import KubernetesError
from epp.kubernetes.objects import ACCESS_REVIEWS, TOKEN_REVIEWS, AccessReview, TokenReview

logger = logging.getLogger("headroom.epp.kubernetes")

_CACHED_S = 60.0
_MAX_CACHED = 1000
_MAX_TOKEN_CHARACTERS = 16_384
_REVIEWS_AT_ONCE = 4
_ALLOWED, _UNAUTHENTICATED, _FORBIDDEN, _UNKNOWN = 200, 401, 403, 503
_REASONS = {
    _UNAUTHENTICATED: "a bearer token that the Kubernetes API knows is needed",
    _FORBIDDEN: "the token's user may not get this path: RBAC must allow it as a non-resource URL",
    _UNKNOWN: "the Kubernetes API can't be asked about the token just now",
}


class TokenReviewer:
    """Asks the API server by TokenReview and SubjectAccessReview, and keeps each answer for a minute."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._limit = asyncio.Semaphore(_REVIEWS_AT_ONCE)
        self._verdicts: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self.reviews = 0

    async def review(self, token: str, path: str, verb: str = "get") -> int:
        """Return 200 if the token's user may, else 401 or 403; 503 if the API server can't be asked."""
        if not token or len(token) > _MAX_TOKEN_CHARACTERS:
            return _UNAUTHENTICATED
        key = hashlib.sha256("\0".join((verb, path, token)).encode()).digest()
        known = self._known(key)
        if known is not None:
            return known
        async with self._limit:
            # Another request may have asked the same while this one waited.
            known = self._known(key)
            return await self._ask(key, token, path, verb) if known is None else known

    async def _ask(self, key: bytes, token: str, path: str, verb: str) -> int:
        self.reviews += 1
        try:
            verdict = await self._judge(token, path, verb)
        except KubernetesError as error:
            logger.error("can't review who reads %s: %s", path, error)
            return _UNKNOWN
        self._remember(key, verdict)
        return verdict

    async def _judge(self, token: str, path: str, verb: str) -> int:
        reviewed = await self._client.create(TOKEN_REVIEWS, TokenReview({"token": token}))
        if not reviewed.status.authenticated:
            return _UNAUTHENTICATED
        user = reviewed.status.user
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": {"path": path, "verb": verb},
        }
        access = await self._client.create(ACCESS_REVIEWS, AccessReview(spec))
        return _ALLOWED if access.status.allowed else _FORBIDDEN

    def _known(self, key: bytes) -> int | None:
        good_until, verdict = self._verdicts.get(key, (0.0, 0))
        return verdict if time.monotonic() < good_until else None

    def _remember(self, key: bytes, verdict: int) -> None:
        self._verdicts[key] = time.monotonic() + _CACHED_S, verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _MAX_CACHED:
            self._verdicts.popitem(last=False)


class BearerAuth:
    """Middleware: lets a request through if its bearer token's user may use that path and method."""

    def __init__(self, app: ASGIApp, reviewer: TokenReviewer) -> None:
        self._app = app
        self._reviewer = reviewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        verdict = await self._reviewer.review(token, scope["path"], scope["method"].lower())
        if verdict == _ALLOWED:
            await self._app(scope, receive, send)
            return
        headers = {"www-authenticate": "Bearer"} if verdict == _UNAUTHENTICATED else None
        await PlainTextResponse(_REASONS[verdict] + "\n", verdict, headers)(scope, receive, send)
