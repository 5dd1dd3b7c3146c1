"""The predictor's HTTP application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import open_store
from predictor import sidecar, v1
from predictor.config import Config
from predictor.engine import Engine
from predictor.metrics import Metrics
from predictor.sync import Sync


def create_app(config: Config) -> Starlette:
    """The server of one model store; it polls while the application lives. StoreError for an unusable location."""
    engine = Engine()
    metrics = Metrics(engine)
    sync = Sync(open_store(config.model_store), engine, metrics, config.model_sync_interval_sec)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # The first look comes before the first request, so that a started predictor is a ready one.
        await sync.look()
        polling = asyncio.create_task(sync.run())
        yield
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    routes = [
        *v1.routes(config, engine, metrics),
        *sidecar.routes(config, engine, metrics, sync),
        Route("/metrics", metrics_page),
    ]
    return Starlette(routes=routes, lifespan=lifespan)
