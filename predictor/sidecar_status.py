"""The status, readiness and reload endpoints of the prediction sidecar's API."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import TARGETS
from predictor.config import Config
from predictor.engine import Engine, provenance
from predictor.http import json
from predictor.latency_pair import kind
from predictor.repository import Repository


def routes(config: Config, engine: Engine, repository: Repository) -> list[Route]:
    async def status(request: Request) -> Response:
        return json(
            {
                "is_ready": _is_ready(engine),
                **_about(config, engine),
                "last_model_load": _loaded_at(engine),
                "training_server_url": config.training_server_url,
                "ensemble_active": False,
                "models_exist": {f"{name}_model": name in engine.models for name in TARGETS},
                **provenance(engine.generation),
                "model_store": config.model_store,
                "model_control_mode": repository.mode,
                "last_error": repository.last_error,
            }
        )

    async def reload(request: Request) -> Response:
        result = await repository.reload()
        return json(
            {
                "synced": result.synced,
                "loaded": result.loaded,
                "is_ready": _is_ready(engine),
                **_about(config, engine),
                "last_load_time": _loaded_at(engine),
                "last_error": repository.last_error,
            }
        )

    async def healthz(request: Request) -> Response:
        return json({"status": "ok", "service": "headroom-predictor"})

    async def readyz(request: Request) -> Response:
        if not _is_ready(engine):
            return json({"detail": "Models not ready"}, 503)
        return json({"status": "ready", **_about(config, engine)})

    async def root(request: Request) -> Response:
        return json(
            {
                "message": "Headroom latency predictor",
                **_about(config, engine),
                "description": "Predicts TTFT and TPOT; see GET /v1/ttft, /v1/tpot, and /docs",
                "is_ready": _is_ready(engine),
                "sync_interval": config.model_sync_interval_sec,
                "training_server": config.training_server_url,
            }
        )

    return [
        Route("/status", status),
        Route("/reload", reload, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/", root),
    ]


def _is_ready(engine: Engine) -> bool:
    return all(name in engine.models for name in TARGETS)


def _loaded_at(engine: Engine) -> Any:
    return max((served.loaded_at for name, served in engine.models.items() if name in TARGETS), default=None)


def _about(config: Config, engine: Engine) -> dict[str, Any]:
    served = next((engine.models[name] for name in TARGETS if name in engine.models), None)
    model_type, objective, quantile = kind(served.default) if served else (config.model_type, None, None)
    return {"model_type": model_type, "objective_type": objective, "quantile": quantile}
