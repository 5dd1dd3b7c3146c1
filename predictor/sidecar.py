"""The prediction sidecar's API: both latencies of every row in one request.

Where clients of the sidecar know a defect, this differs: with nothing loaded, /predict/bulk answers 503 like its strict
sister, and not 200 with nulls.
"""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import ROW_NAMES, FeatureRow, row_matrix
from predictor.config import Config
from predictor.engine import Engine, Loaded, Matrix, Model
from predictor.exceptions import InputError
from predictor.http import TooLargeError, json, read_body
from predictor.metrics import Metrics
from predictor.sync import Sync
from predictor.wire import BulkRequest, BulkResponse, PredictionResponse, StrictBulkResponse

TARGETS = ("ttft", "tpot")
T = TypeVar("T")
_one = msgspec.json.Decoder(FeatureRow)
_many = msgspec.json.Decoder(BulkRequest)
_PATH = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)


class _RefusedError(Exception):
    """An answer that ends the request; `detail` has the shape that clients of the sidecar expect."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.response = json({"detail": detail}, status)


def routes(config: Config, engine: Engine, metrics: Metrics, sync: Sync) -> list[Route]:
    @_refusable
    async def predict(request: Request) -> Response:
        row = _decode(_one, await _body(config, request))
        predictions, _ = _predict(engine, metrics, [row])
        return json(predictions[0])

    @_refusable
    async def bulk(request: Request) -> Response:
        started_at = time.perf_counter()
        rows = _decode(_many, await _body(config, request)).requests
        if not 1 <= len(rows) <= config.max_rows:
            wrong = f"expected 1 to {config.max_rows} rows, got {len(rows)}"
            raise _RefusedError(422, [_problem(["body", "requests"], wrong)])
        predictions, generation = _predict(engine, metrics, rows)
        took_ms = (time.perf_counter() - started_at) * 1000
        strict = request.url.path.endswith("/strict")
        answer = StrictBulkResponse if strict else BulkResponse
        return json(answer(predictions, len(rows), len(rows), 0, took_ms, generation))

    async def status(request: Request) -> Response:
        loaded = engine.loaded
        return json(
            {
                "is_ready": _ready(loaded),
                **_about(config, loaded),
                "last_model_load": loaded.loaded_at if loaded else None,
                "training_server_url": config.training_server_url,
                "ensemble_active": False,
                "models_exist": {f"{name}_model": bool(loaded and name in loaded.models) for name in TARGETS},
                "generation": loaded.generation.generation if loaded else None,
                "generation_age_s": round(loaded.generation.age_s, 3) if loaded else None,
                "model_store": config.model_store,
                "last_error": sync.last_error,
            }
        )

    async def reload(request: Request) -> Response:
        result = await sync.look()
        loaded = engine.loaded
        return json(
            {
                "synced": result.synced,
                "loaded": result.loaded,
                "is_ready": _ready(loaded),
                **_about(config, loaded),
                "last_load_time": loaded.loaded_at if loaded else None,
                "last_error": sync.last_error,
            }
        )

    async def healthz(request: Request) -> Response:
        return json({"status": "ok", "service": "headroom-predictor"})

    async def readyz(request: Request) -> Response:
        if not _ready(engine.loaded):
            return json({"detail": "Models not ready"}, 503)
        return json({"status": "ready", **_about(config, engine.loaded)})

    async def root(request: Request) -> Response:
        return json(
            {
                "message": "Headroom latency predictor",
                **_about(config, engine.loaded),
                "description": "Predicts TTFT and TPOT; see GET /v1/ttft and /v1/tpot",
                "is_ready": _ready(engine.loaded),
                "sync_interval": config.model_sync_interval_sec,
                "training_server": config.training_server_url,
            }
        )

    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/predict/bulk", bulk, methods=["POST"]),
        Route("/predict/bulk/strict", bulk, methods=["POST"]),
        Route("/status", status),
        Route("/reload", reload, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/", root),
    ]


def _refusable(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except _RefusedError as refused:
            return refused.response

    return answered


async def _body(config: Config, request: Request) -> bytes:
    try:
        return await read_body(request, config.max_body_bytes)
    except TooLargeError as problem:
        raise _RefusedError(413, str(problem)) from problem
    except InputError as problem:
        raise _RefusedError(400, str(problem)) from problem


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        message, path = (match[1], match[2]) if match else (str(error), "")
        missing = re.search(r"missing required field `(\w+)`", message)
        location = [*filter(None, re.split(r"[.\[\]]+", path)), *([missing[1]] if missing else [])]
        raise _RefusedError(422, [_problem(["body", *location], message)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _RefusedError(422, [_problem(["body"], f"not JSON: {error}")]) from error


def _problem(location: list[str], message: str) -> dict[str, Any]:
    return {"loc": location, "msg": message, "type": "value_error"}


def _predict(engine: Engine, metrics: Metrics, rows: list[FeatureRow]) -> tuple[list[PredictionResponse], int]:
    started_at = time.perf_counter()
    loaded = engine.loaded
    if loaded is None or not _ready(loaded):
        raise _RefusedError(503, "Models not ready")
    columns, matrix = [], row_matrix(rows)
    for name in TARGETS:
        model = loaded.models[name]
        inferred_at = time.perf_counter()
        columns.append(_column(model, matrix))
        ended_at = time.perf_counter()
        metrics.predicted(name, model.manifest.version, len(rows), ended_at - inferred_at, ended_at - started_at)
    now = datetime.now(UTC)
    model_type, objective, quantile = _kind(loaded)
    ttft, tpot = (np.maximum(column, 0).astype(np.float64).tolist() for column in columns)
    predictions = [
        PredictionResponse(*pair, now, model_type, objective, quantile, loaded.loaded_at)
        for pair in zip(ttft, tpot, strict=True)
    ]
    return predictions, loaded.generation.generation


def _column(model: Model, rows: Matrix) -> Matrix:
    """The model's first output for every row; a feature that the rows don't know takes its default."""
    inputs = np.empty((len(rows), len(model.inputs)), dtype=np.float32)
    for position, feature in enumerate(model.manifest.inputs):
        known = feature.name in ROW_NAMES
        inputs[:, position] = rows[:, ROW_NAMES.index(feature.name)] if known else feature.fill_value
    return model.predict(inputs)[:, 0]


def _ready(loaded: Loaded | None) -> bool:
    return loaded is not None and all(name in loaded.models for name in TARGETS)


def _about(config: Config, loaded: Loaded | None) -> dict[str, Any]:
    model_type, objective, quantile = _kind(loaded) if loaded else (config.model_type, None, None)
    return {"model_type": model_type, "objective_type": objective, "quantile": quantile}


def _kind(loaded: Loaded) -> tuple[str, str, float | None]:
    model = next((loaded.models[name] for name in TARGETS if name in loaded.models), None)
    if model is None:
        return "unknown", "unknown", None
    manifest = model.manifest
    return manifest.model_type, manifest.objective, manifest.outputs[0].quantile
