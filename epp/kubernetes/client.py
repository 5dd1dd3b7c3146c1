"""A client for the part of the Kubernetes API that the picker needs: single objects, lists, and watches.

It decodes only the few fields of epp.kubernetes.objects.
"""

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
import msgspec

from epp.kubernetes.exceptions import ApiError, ExpiredError, UnreachableError
from epp.kubernetes.kubeconfig import Access
from epp.kubernetes.objects import Metadata, Resource

logger = logging.getLogger("headroom.epp.kubernetes")

T = TypeVar("T")
Params = dict[str, str]

_PAGE_OBJECTS = 500
# Bytes. An object may have 3 MiB (etcd takes 1.5 MiB of its binary form); a usual page has a tenth of this.
_MAX_LINE_BYTES = 8 << 20
_MAX_ANSWER_BYTES = 128 << 20
_ANSWER_S = 10.0
# The server ends a watch after a time in this range. Until then it sends a bookmark a minute, the first one sometimes
# a minute later: one that is silent for longer hangs.
_WATCH_S = (240, 360)
_WATCH_SILENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects objects of a kind: those of a namespace with these labels and fields, in the API's syntax."""

    namespace: str
    labels: str = ""
    fields: str = ""

    @property
    def params(self) -> Params:
        return {
            key: value for key, value in {"labelSelector": self.labels, "fieldSelector": self.fields}.items() if value
        }


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Objects by name, and the version that a watch continues from."""

    items: dict[str, T]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """A change of the object of that name. `None`: deleted or undecodable. Empty name: a bookmark with a version."""

    version: str
    name: str = ""
    object: T | None = None


@dataclass(frozen=True, slots=True)
class _ApiRequest:
    method: str
    path: str
    patience: aiohttp.ClientTimeout
    params: Params | None = None
    content: bytes | None = None


class _Head(msgspec.Struct, frozen=True):
    metadata: Metadata


class _ListPage(msgspec.Struct, frozen=True):
    metadata: "_PageMetadata"
    items: list[msgspec.Raw]


class _PageMetadata(msgspec.Struct, frozen=True):
    resourceVersion: str  # noqa: N815
    continue_: str = msgspec.field(name="continue", default="")


class _Change(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    code: int = 0


class Client:
    """The methods raise UnreachableError, ApiError or CredentialsError. They log and leave out undecodable objects.

    `wait_s` is the longest wait for each of a request's steps: to connect, to send, and for every part of the answer.
    """

    def __init__(self, http: aiohttp.ClientSession, access: Access) -> None:
        self._http = http
        self._server = access.server.rstrip("/")
        self._credentials = access.credentials
        self.namespace = access.namespace

    async def get(self, resource: Resource[T], namespace: str, name: str, wait_s: float = _ANSWER_S) -> T:
        path = resource.path(namespace, name)
        return _answered(await self._ask("GET", path, wait_s=wait_s), resource.type)

    async def create(self, resource: Resource[T], item: T, namespace: str = "", wait_s: float = _ANSWER_S) -> T:
        path = resource.path(namespace)
        return _answered(await self._ask("POST", path, body=item, wait_s=wait_s), resource.type)

    async def replace(self, resource: Resource[T], item: T, namespace: str, name: str, wait_s: float = _ANSWER_S) -> T:
        """Replace an object. Raise ApiError 409 if its resourceVersion is no longer that of `item`."""
        path = resource.path(namespace, name)
        return _answered(await self._ask("PUT", path, body=item, wait_s=wait_s), resource.type)

    async def list(self, resource: Resource[T], selection: Selection) -> Listing[T]:
        items: dict[str, T] = {}
        params = {**selection.params, "limit": str(_PAGE_OBJECTS)}
        while True:
            page = _answered(await self._ask("GET", resource.path(selection.namespace), params), _ListPage)
            for raw in page.items:
                named = _named(raw, resource)
                if named.object is not None:
                    items[named.name] = named.object
            if not page.metadata.continue_:
                return Listing(items, page.metadata.resourceVersion)
            params["continue"] = page.metadata.continue_

    async def watch(
        self, resource: Resource[T], selection: Selection, version: str
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield the changes after `version`, until the server ends the watch.

        Raise ExpiredError if that version is too old.
        """
        params = selection.params | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*_WATCH_S)),
        }
        patience = aiohttp.ClientTimeout(connect=_ANSWER_S, sock_read=_WATCH_SILENCE_S)
        async with self._answer(_ApiRequest("GET", resource.path(selection.namespace), patience, params)) as response:
            async for line in _lines(response):
                yield _event(line, resource)

    async def _ask(
        self, method: str, path: str, params: Params | None = None, body: object = None, wait_s: float = _ANSWER_S
    ) -> bytes:
        patience = aiohttp.ClientTimeout(connect=wait_s, sock_read=wait_s)
        content = None if body is None else msgspec.json.encode(body)
        async with self._answer(_ApiRequest(method, path, patience, params, content)) as response:
            return await _whole(response)

    @asynccontextmanager
    async def _answer(self, request: _ApiRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with await self._authorized(request) as response:
                try:
                    if response.status >= 400:
                        raise _refusal(response.status, await _whole(response))
                    yield response
                finally:
                    _abort_unfinished(response)
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{request.method} {request.path}: {str(error) or type(error).__name__}") from error

    async def _authorized(self, request: _ApiRequest) -> aiohttp.ClientResponse:
        """Send a request. When the server refuses the token (401), send it again with a new token, if there is one."""
        header = await self._credentials.header()
        response = await self._send(request, header)
        if response.status != 401:
            return response
        async with response:
            refusal = _refusal(response.status, await _whole(response))
        renewed = await self._credentials.header(refused=header)
        if renewed == header:
            raise refusal
        return await self._send(request, renewed)

    async def _send(self, request: _ApiRequest, authorization: str) -> aiohttp.ClientResponse:
        headers = {"Authorization": authorization} if authorization else {}
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        return await self._http.request(
            request.method,
            self._server + request.path,
            params=request.params,
            data=request.content,
            headers=headers,
            timeout=request.patience,
            allow_redirects=False,
        )


def _answered(data: bytes, what: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=what)
    except msgspec.DecodeError as error:
        raise UnreachableError(f"an answer that is no {what.__name__}: {error}") from error


def _named(raw: msgspec.Raw, resource: Resource[T]) -> WatchEvent[T]:
    """Return an object's name and the object; None in place of an object whose fields don't fit its kind."""
    head = _answered(bytes(raw), _Head).metadata
    try:
        return WatchEvent(head.resourceVersion, head.name, msgspec.json.decode(raw, type=resource.type))
    except msgspec.ValidationError as error:
        logger.error("ignoring %s %s: %s", resource.plural, head.name, error)
        return WatchEvent(head.resourceVersion, head.name)


def _event(line: bytes, resource: Resource[T]) -> WatchEvent[T]:
    change = _answered(line, _Change)
    if change.type == "ERROR":
        raise _refusal(500, bytes(change.object))
    if change.type in {"ADDED", "MODIFIED"}:
        return _named(change.object, resource)
    head = _answered(bytes(change.object), _Head).metadata
    return WatchEvent(head.resourceVersion, "" if change.type == "BOOKMARK" else head.name)


def _refusal(status: int, data: bytes) -> ApiError:
    found = _Status()
    with suppress(msgspec.DecodeError):
        found = msgspec.json.decode(data, type=_Status)
    code = found.code or status
    text = found.message or data[:200].decode(errors="replace") or "no reason given"
    return ExpiredError(code, text) if code == 410 else ApiError(code, text)


def _abort_unfinished(response: aiohttp.ClientResponse) -> None:
    """Close the connection of a watch that is left early.

    An orderly end of TLS would wait for an answer, and the server may be gone.
    """
    if response.connection and response.connection.transport:
        response.connection.transport.abort()


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > _MAX_ANSWER_BYTES:
            raise UnreachableError(f"{response.url.path}: an answer of more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(data)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    waiting = bytearray()
    async for chunk in response.content.iter_any():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            waiting += chunk[start:end]
            yield bytes(waiting)
            waiting.clear()
            start = end + 1
        waiting += chunk[start:]
        if len(waiting) > _MAX_LINE_BYTES:
            raise UnreachableError(f"{response.url.path}: a line of more than {_MAX_LINE_BYTES} bytes")
