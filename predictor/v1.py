"""The API at /v1/<model>: predictions of any model whose inputs are single columns, from features by name."""

import shlex
import time
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from predictor.answering import Run, count, count_failure, run_inline_or_in_thread
from predictor.config import Config
from predictor.engine import Engine, Served, provenance
from predictor.exceptions import InputError, NotLoadedError, PredictorError
from predictor.http import Handler, encode, error, json, read_body, send_json
from predictor.model import Array
from predictor.refusals import http_status
from predictor.rows import read_rows

PREFIX = "/v1/"


def prediction_handler(config: Config, engine: Engine) -> Handler:
    """Return the handler of POST /v1/<model>."""

    async def predict(scope: Scope, receive: Receive, send: Send) -> None:
        began_ns = time.perf_counter_ns()
        name = scope["path"].removeprefix(PREFIX)
        try:
            served = engine.served_model(name)
            body = await read_body(scope, receive, config.max_body_bytes)
            (answer, run), queue_ns = await run_inline_or_in_thread(len(body), _answer, served, body)
        except PredictorError as problem:
            count_failure(engine, name, began_ns)
            await send_json(send, encode({"error": str(problem)}), http_status(problem))
        else:
            count(engine, run, queue_ns)
            await send_json(send, answer)

    return predict


def routes(engine: Engine) -> list[Route]:
    """Return the routes of GET /v1, which lists the models, and GET /v1/<model>, which describes one."""

    async def models(request: Request) -> Response:
        return json({"models": sorted(engine.models), **provenance(engine.generation)})

    async def model(request: Request) -> Response:
        try:
            return json(_describe(engine.served_model(request.path_params["model"]), str(request.base_url)))
        except NotLoadedError as problem:
            return error(http_status(problem), str(problem))

    return [Route("/v1", models), Route("/v1/{model}", model)]


def _answer(served: Served, body: bytes) -> tuple[bytes, Run]:
    began_ns = time.perf_counter_ns()
    model = served.default
    signature = model.signature
    if not signature.features:
        raise InputError(f"{model.name}: its inputs are not single columns; use /v2/models/{model.name}/infer")
    columns, single = read_rows(body, signature.features, signature.max_rows)
    read_ns = time.perf_counter_ns()
    results = model.predict(columns)
    ran_ns = time.perf_counter_ns()
    answer = encode(_document(served, results, single))
    run = Run(model, columns.shape[1], read_ns - began_ns, ran_ns - read_ns, time.perf_counter_ns() - ran_ns)
    return answer, run


def _document(served: Served, results: list[Array], single: bool) -> dict[str, Any]:
    model = served.default
    outputs = model.manifest.outputs if model.manifest else ()
    answer: dict[str, Any] = {"model": model.name, "quantile": outputs[0].quantile if outputs else None}
    for output, values in zip(model.signature.outputs, results, strict=True):
        rows = (values.reshape(len(values)) if output.is_column else values).astype(np.float64).tolist()
        answer[output.name] = rows[0] if single else rows
    if len(outputs) > 1:
        answer["quantiles"] = {output.name: output.quantile for output in outputs}
    return {**answer, **provenance(served.generation), "model_version": model.version}


def _describe(served: Served, base_url: str) -> dict[str, Any]:
    model = served.default
    example = {feature.name: feature.plausible_value for feature in model.signature.features if feature.required}
    manifest = model.manifest
    from_manifest = (
        {}
        if manifest is None
        else {
            "model_type": manifest.model_type,
            "objective": manifest.objective,
            "trained_at": manifest.trained_at,
            "train_samples": manifest.train_samples,
            "holdout_scores": manifest.holdout_scores,
        }
    )
    outputs = manifest.outputs if manifest else [{"name": output.name} for output in model.signature.outputs]
    return {
        "model": model.name,
        **from_manifest,
        **provenance(served.generation),
        "model_version": model.version,
        "max_rows": model.signature.max_rows,
        "features": [{**msgspec.to_builtins(f), "required": f.required} for f in model.signature.features],
        "outputs": outputs,
        "example": example,
        "curl": f"curl -s {base_url}v1/{model.name} -d {shlex.quote(encode(example).decode())}",
    }
