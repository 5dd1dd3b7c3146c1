"""An S3 server in memory, with one bucket. It can be slow, refuse, be away, or answer with an older pointer."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET: Final = "chaos"
LOCATION: Final = f"s3://{BUCKET}/models"
# How the server can misbehave, by the name of the fault.
WAYS: Final = ("slow, 2 s an answer", "silent", "refuses with 403", "503 to every request", "away", "stale pointer")
_SLOW, _SILENT, _FORBIDDEN, _BUSY, _AWAY, _STALE = WAYS
_SLOW_S: Final = 2.0
# Longer than any client waits.
_SILENT_S: Final = 3600.0
_POINTER: Final = "current.json"
_ERRORS: Final = {_FORBIDDEN: (403, "AccessDenied"), _BUSY: (503, "SlowDown")}


class BucketServer:
    """The server on a port of 127.0.0.1. It never checks a signature."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._way = ""
        self._objects: dict[str, bytes] = {}
        self._replaced: dict[str, bytes] = {}
        self._runner: web.AppRunner | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which boto3 finds the server."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self._port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "unchecked",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    async def start(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        # An answer that is held back ends with the server, and not a minute later.
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def misbehave(self, way: str) -> None:
        """Begin to misbehave in one of WAYS."""
        self._way = way
        if way == _AWAY:
            await self.stop()

    async def behave(self) -> None:
        """Answer correctly again. What was held back stays so, as with a real server."""
        self._way = ""
        if self._runner is None:
            await self.start()

    async def _answer(self, request: web.Request) -> web.Response:
        way, key = self._way, request.path.removeprefix(f"/{BUCKET}").removeprefix("/")
        await asyncio.sleep({_SLOW: _SLOW_S, _SILENT: _SILENT_S}.get(way, 0.0))
        if way in _ERRORS:
            await request.read()
            return _error(*_ERRORS[way])
        match request.method:
            case "GET" if not key:
                return self._list(request.query.get("prefix", ""))
            case "GET" | "HEAD":
                return self._get(key, is_stale=way == _STALE)
            case "PUT":
                return self._put(key, await request.read(), request.headers)
            case "DELETE":
                return self._delete(key, request.headers)
        return _error(405, "MethodNotAllowed")

    def _get(self, key: str, is_stale: bool) -> web.Response:
        found = self._objects.get(key)
        if is_stale and key.endswith(_POINTER):
            found = self._replaced.get(key, found)
        if found is None:
            return _error(404, "NoSuchKey")
        return web.Response(body=found, headers={"ETag": _etag(found)})

    def _put(self, key: str, data: bytes, headers: Mapping[str, str]) -> web.Response:
        if not self._allows(key, headers):
            return _error(412, "PreconditionFailed")
        if key in self._objects:
            self._replaced[key] = self._objects[key]
        self._objects[key] = data
        return web.Response(headers={"ETag": _etag(data)})

    def _delete(self, key: str, headers: Mapping[str, str]) -> web.Response:
        if not self._allows(key, headers):
            return _error(412, "PreconditionFailed")
        self._objects.pop(key, None)
        return web.Response(status=204)

    def _allows(self, key: str, headers: Mapping[str, str]) -> bool:
        found = self._objects.get(key)
        if headers.get("If-None-Match") == "*":
            return found is None
        wanted = headers.get("If-Match")
        return wanted is None or (found is not None and _etag(found).strip('"') == wanted.strip('"'))

    def _list(self, prefix: str) -> web.Response:
        keys = (key for key in sorted(self._objects) if key.startswith(prefix))
        entries = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys)
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


def _error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>as the fault wants it</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
