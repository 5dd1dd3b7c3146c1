"""The live page's addresses: the page itself, its JSON, and its stream of events."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from epp.live.trainer_history import TrainerHistoryError
from epp.live.trial import Asked, WhatIf, ask
from epp.live.view import DECISIONS_PATH, STEPS_PATH, WHAT_IF_PATH, View, explained
from serving.bodies import BodyError, BodyMemory, read_body

T = TypeVar("T")

ASSETS = Path(str(files("epp"))) / "live" / "assets"
_EVERY_S = 1.0
# Pages that are open at once, in a process.
_MOST_STREAMS = 32
# Questions that are answered at once, in a process. A slider that moves asks some times a second.
_MOST_TRIALS = 4
_MOST_DECISIONS = 1_000
_MOST_BODY_BYTES = 64 << 10
_MOST_COMPARISON_BYTES = 8 << 20


class _Places:
    """A number of things that may go on at once. Beyond it, 503."""

    def __init__(self, most: int, refusal: str) -> None:
        self._free = most
        self._refusal = refusal

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._free:
            raise HTTPException(503, self._refusal, {"retry-after": "1"})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class UnderLive:
    """Passes requests for /live to one app, and all others to another."""

    def __init__(self, others: ASGIApp, live: ASGIApp) -> None:
        self._others = others
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_live = scope["type"] == "http" and f"{scope['path']}/".startswith("/live/")
        await (self._live if is_live else self._others)(scope, receive, send)


def create_live_app(view: View) -> Starlette:
    """Return the app that answers under /live."""
    memory = BodyMemory(_MOST_BODY_BYTES * 2 * _MOST_TRIALS)
    streams = _Places(_MOST_STREAMS, f"{_MOST_STREAMS} pages are open: close one")
    trials = _Places(_MOST_TRIALS, "too many questions at once: try again")

    async def page(request: Request) -> Response:
        return FileResponse(ASSETS / "index.html", headers={"cache-control": "no-cache"})

    async def state(request: Request) -> Response:
        return _json(await view.state())

    async def events(request: Request) -> Response:
        """Stream an event a second. A client that is slow gets fewer, since each waits for the one before."""
        place = ExitStack()
        place.enter_context(streams.one())
        return _Events(_lines(view), place)

    async def steps(request: Request) -> Response:
        """Return this worker's counts, for the worker that was asked."""
        since = float(request.query_params.get("since", "0"))
        return Response(msgspec.msgpack.encode(view.counts.since(since)), media_type="application/msgpack")

    async def decisions(request: Request) -> Response:
        text = request.query_params.get("limit", "40")
        if not text.isdigit() or not 1 <= int(text) <= _MOST_DECISIONS:
            raise HTTPException(400, f"limit: expected 1 to {_MOST_DECISIONS}, got {text[:20]!r}")
        return _json({"decisions": await view.decisions(int(text))})

    async def ask_about(request: Request) -> Response:
        asked, _ = await _read(request, Asked, memory)
        with trials.one():
            try:
                return _json(await explained(await ask(view.director, asked)))
            except ValueError as error:
                raise HTTPException(422, str(error)) from error

    async def what_if(request: Request) -> Response:
        asked, body = await _read(request, WhatIf, memory)
        with trials.one():
            try:
                answer = await view.what_if(asked, body)
            except ValueError as error:
                raise HTTPException(422, str(error)) from error
        if answer is None:
            raise HTTPException(404, f"request_id: no decision of {asked.request_id[:100]!r} is remembered any more")
        return Response(answer, media_type="application/json")

    async def models(request: Request) -> Response:
        if view.trainer is None:
            raise HTTPException(404, "there is no trainer: prediction is not enabled")
        try:
            return Response(await view.trainer.read(), media_type="application/json")
        except TrainerHistoryError as error:
            raise HTTPException(502, str(error)) from error

    async def comparison(request: Request) -> Response:
        if view.comparison is None:
            raise HTTPException(404, "there is no comparison: --live-comparison-file names none")
        return Response(await asyncio.to_thread(_read_comparison, view.comparison), media_type="application/json")

    return Starlette(
        exception_handlers={HTTPException: _refused},
        routes=[
            Route("/live", lambda request: RedirectResponse("/live/")),
            Route("/live/", page),
            Route("/live/api/state", state),
            Route("/live/api/events", events),
            Route(STEPS_PATH, steps),
            Route(DECISIONS_PATH, decisions),
            Route("/live/api/ask", ask_about, methods=["POST"]),
            Route(WHAT_IF_PATH, what_if, methods=["POST"]),
            Route("/live/api/models", models),
            Route("/live/api/comparison", comparison),
            Mount("/live/assets", StaticFiles(directory=ASSETS)),
        ],
    )


class _Events(StreamingResponse):
    """A stream of server-sent events, which gives its place back when it ends."""

    def __init__(self, lines: AsyncIterator[bytes], place: ExitStack) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def _lines(view: View) -> AsyncIterator[bytes]:
    while True:
        yield b"data: " + await view.event() + b"\n\n"
        await asyncio.sleep(_EVERY_S)


async def _read(request: Request, kind: type[T], memory: BodyMemory) -> tuple[T, bytes]:
    try:
        body = await read_body(request.receive, _MOST_BODY_BYTES, memory)
        return msgspec.json.decode(body, type=kind), body
    except BodyError as error:
        raise HTTPException(error.status, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(422, f"the body can't be used: {error}") from error


def _read_comparison(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_COMPARISON_BYTES + 1)
        msgspec.json.decode(data, type=msgspec.Raw)
    except (OSError, msgspec.DecodeError) as error:
        raise HTTPException(404, f"--live-comparison-file: {file.name} can't be read yet") from error
    return data


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _json({"error": error.detail}, error.status_code, error.headers)


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
