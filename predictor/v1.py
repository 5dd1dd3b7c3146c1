"""/v1/<model>: any model of the store, by its features' names."""

import shlex
import time
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.config import Config
from predictor.engine import Engine, Loaded, Matrix, Model
from predictor.exceptions import InputError, NotLoadedError
from predictor.http import TooLargeError, error, json, read_body
from predictor.metrics import Metrics
from predictor.rows import read_rows


def routes(config: Config, engine: Engine, metrics: Metrics) -> list[Route]:
    """GET /v1 lists the models, GET /v1/<model> describes one, POST /v1/<model> predicts."""

    async def models(request: Request) -> Response:
        loaded = engine.loaded
        names = sorted(loaded.models) if loaded else []
        return json({"models": names, **(_served(loaded) if loaded else {})})

    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        try:
            found, loaded = engine.get(name)
            if request.method == "GET":
                return json(_describe(found, loaded, str(request.base_url)))
            started_at = time.perf_counter()
            rows, single = read_rows(
                await read_body(request, config.max_body_bytes), found.manifest.inputs, config.max_rows
            )
            inferred_at = time.perf_counter()
            values = found.predict(rows)
            ended_at = time.perf_counter()
            metrics.predicted(name, found.manifest.version, len(rows), ended_at - inferred_at, ended_at - started_at)
            return json(_answer(found, loaded, values, single))
        except NotLoadedError as problem:
            known = engine.loaded is not None
            return error(404 if known else 503, str(problem))
        except InputError as problem:
            metrics.failure.labels(name, "input").inc()
            return error(400, str(problem))
        except TooLargeError as problem:
            metrics.failure.labels(name, "too_large").inc()
            return error(413, str(problem))

    return [Route("/v1", models), Route("/v1/{model}", model, methods=["GET", "POST"])]


def _served(loaded: Loaded) -> dict[str, Any]:
    return {"generation": loaded.generation.generation, "generation_age_s": round(loaded.generation.age_s, 3)}


def _answer(model: Model, loaded: Loaded, values: Matrix, single: bool) -> dict[str, Any]:
    outputs = model.manifest.outputs
    answer: dict[str, Any] = {"model": model.manifest.model, "quantile": outputs[0].quantile}
    for index, output in enumerate(outputs):
        column = values[:, index].astype(np.float64).tolist()
        answer[output.name] = column[0] if single else column
    if len(outputs) > 1:
        answer["quantiles"] = {output.name: output.quantile for output in outputs}
    return {**answer, **_served(loaded), "model_version": model.manifest.version}


def _describe(model: Model, loaded: Loaded, base_url: str) -> dict[str, Any]:
    manifest = model.manifest
    example = {
        feature.name: _example(feature.minimum, feature.maximum) for feature in manifest.inputs if feature.required
    }
    body = msgspec.json.encode(example).decode()
    return {
        "model": manifest.model,
        "model_type": manifest.model_type,
        "objective": manifest.objective,
        **_served(loaded),
        "model_version": manifest.version,
        "trained_at": manifest.trained_at,
        "train_samples": manifest.train_samples,
        "holdout_scores": manifest.holdout_scores,
        "features": [{**msgspec.to_builtins(f), "required": f.required} for f in manifest.inputs],
        "outputs": manifest.outputs,
        "example": example,
        "curl": f"curl -s {base_url}v1/{manifest.model} -d {shlex.quote(body)}",
    }


def _example(minimum: float, maximum: float | None) -> float:
    return (minimum + maximum) / 2 if maximum is not None else max(minimum, 0.0) + 1
