"""The predictor's HTTP application."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from re import Pattern
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store import Trust, open_store
from predictor import answering, sidecar, sidecar_status, v1
from predictor.config import Config
from predictor.engine import Engine
from predictor.exceptions import PredictorError
from predictor.http import Handler, encode, error
from predictor.metrics import Metrics
from predictor.openapi import document
from predictor.opener import Opener
from predictor.refusals import http_status
from predictor.repository import POLL, Repository
from predictor.shared_totals import SharedTotals
from predictor.trial import Trials
from predictor.v2 import rest

# The page contains its script and style, and requests data only from this server.
_PAGE_POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


class Application:
    """The ASGI application. Prediction requests go directly to their handlers, all others through starlette."""

    def __init__(
        self,
        prediction_handlers: Mapping[str, Handler],
        v1: Handler,
        v2: tuple[Pattern[str], Handler],
        starlette: Starlette,
    ):
        self._prediction_handlers = prediction_handlers
        self._v1 = v1
        self._v2_path, self._v2 = v2
        self.starlette = starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope)(scope, receive, send)

    def _handler(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http" or scope["method"] != "POST":
            return self.starlette
        path: str = scope["path"]
        if path in self._prediction_handlers:
            return self._prediction_handlers[path]
        if path.startswith("/v1/"):
            return self._v1
        if self._v2_path.fullmatch(path):
            return self._v2
        return self.starlette


def create_app(config: Config) -> Application:
    """Create the application of one model store; raise StoreError for an unusable location."""
    engine = Engine()
    return application(config, engine, create_repository(config, engine))


def create_repository(config: Config, engine: Engine) -> Repository:
    opener = Opener(config.limits, Trials() if config.try_models else None)
    store = open_store(config.model_store, Trust(verify_key_file=config.verify_key_file))
    return Repository(store, engine, config.model_control_mode, config.version_policy, opener)


def application(
    config: Config, engine: Engine, repository: Repository, shared: SharedTotals | None = None
) -> Application:
    """Assemble the application. `shared` holds the statistics of all workers of one port."""
    metrics = Metrics(engine, repository, shared)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        answering.start()
        await repository.start(config.load_model)
        async with _background(_tasks(config, engine, repository, shared)):
            yield
        await repository.close()

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    description = encode(document())
    page = files("predictor").joinpath("reference.html").read_bytes()

    async def openapi(request: Request) -> Response:
        return Response(description, media_type="application/json")

    async def reference(request: Request) -> Response:
        return Response(page, media_type="text/html", headers={"content-security-policy": _PAGE_POLICY})

    starlette = Starlette(
        routes=[
            *v1.routes(engine),
            *sidecar_status.routes(config, engine, repository),
            *rest.routes(config, engine, repository),
            Route("/metrics", metrics_page),
            Route("/openapi.json", openapi),
            Route("/docs", reference),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_found, PredictorError: _refused},
    )
    return Application(
        sidecar.prediction_handlers(config, engine),
        v1.prediction_handler(config, engine),
        rest.inference_handler(config, engine),
        starlette,
    )


def _tasks(
    config: Config, engine: Engine, repository: Repository, shared: SharedTotals | None
) -> Iterator[Coroutine[Any, Any, None]]:
    if config.model_control_mode == POLL:
        yield repository.run(config.model_sync_interval_sec)
    if shared:
        yield shared.run(engine.totals)


@asynccontextmanager
async def _background(works: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _not_found(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)  # noqa: S101 (starlette's signature is wider)
    return error(problem.status_code, f"{request.method} {request.url.path}: {problem.detail}")


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, PredictorError)  # noqa: S101 (starlette's signature is wider)
    return error(http_status(problem), str(problem))
