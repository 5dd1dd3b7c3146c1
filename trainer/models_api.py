"""The endpoints about models, compatible with llm-d's training server. Model files are ONNX instead of pickles."""

import asyncio
import io
import tarfile
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import ROW_NAMES, TARGETS, Generation, ModelStore, NotFoundError, StoredModel, StoreError
from serving.bodies import BodyError, BodyMemory, read_body
from serving.retry_after import retry_after
from trainer.config import Config
from trainer.exceptions import EntryError
from trainer.job import FittedModel
from trainer.prefixes import RANGES, PrefixSummary, summarise
from trainer.retraining import Retraining
from trainer.window import Window
from trainer.wire import decode_prediction

# Models of llm-d's training server that this trainer never publishes. Clients may still ask for them.
_ALWAYS_ABSENT = ("ttft_gated", "tpot_gated")
# Largest body of a request that is not a batch of samples.
SMALL_BODY_BYTES = 1 << 20


def routes(
    config: Config, window: Window, store: ModelStore, retraining: Retraining, memory: BodyMemory
) -> list[Route]:
    async def predict(request: Request) -> Response:
        try:
            row = decode_prediction(await read_body(request.receive, SMALL_BODY_BYTES, memory))
        except BodyError as error:
            return unread(error)
        except EntryError as error:
            return unprocessable(error)
        if not all(name in retraining.served for name in TARGETS):
            return json({"detail": "Models not ready"}, 503)
        ttft, tpot = (float(max(retraining.served[name].predict(ROW_NAMES, row)[0], 0)) for name in TARGETS)
        return json(_prediction(config, ttft, tpot))

    async def download_info(request: Request) -> Response:
        ready = {f"{name}_model_ready": name in retraining.served for name in TARGETS}
        return json(
            {
                **_about(config),
                "available_endpoints": _endpoints(config.model_type),
                "model_status": ready,
                "evaluation_info": {
                    "quantile_loss": "pinball loss on held-out samples, in ms",
                    "coverage_percent": "share of held-out samples at or below their prediction",
                    "violation_rate_percent": "share of held-out samples above their prediction",
                },
            }
        )

    async def models_list(request: Request) -> Response:
        found = await asyncio.to_thread(_current_models, store)
        models = {name: _summary(found.get(name)) for name in (*TARGETS, *_ALWAYS_ABSENT)}
        scores = {name: stored.manifest.holdout_scores for name, stored in found.items()}
        return json(
            {"models": models, **_about(config), "server_time": datetime.now(UTC), "evaluation_metrics": scores}
        )

    async def info(request: Request) -> Response:
        name = request.path_params["name"]
        stored = (await asyncio.to_thread(_current_models, store)).get(name)
        if stored is None:
            return json({"detail": f"Model {name} not found"}, 404)
        manifest = stored.manifest
        path = f"{store.location}/{name}/{manifest.version}/{manifest.file.name}"
        quantile = manifest.outputs[0].quantile
        about = {"model_type": manifest.model_type, "quantile": quantile, "version": manifest.version}
        return json({"model_name": name, "path": path, **_summary(stored), **about})

    async def download(request: Request) -> Response:
        name = request.path_params["name"]
        stored = (await asyncio.to_thread(_current_models, store)).get(name)
        if stored is None:
            return json({"detail": f"Model {name} not found"}, 404)
        headers = {
            "content-disposition": f'attachment; filename="{name}.onnx"',
            "etag": f'"{stored.manifest.file.sha256}"',
        }
        return Response(stored.onnx, media_type="application/octet-stream", headers=headers)

    async def trees(request: Request) -> Response:
        return dump(request, "xgboost", "application/json")

    async def lightgbm_text(request: Request) -> Response:
        return dump(request, "lightgbm", "text/plain")

    def dump(request: Request, model_type: str, media_type: str) -> Response:
        found = find_model(model_type, request)
        if isinstance(found, Response):
            return found
        name = f"{request.path_params['name']}_{'lgb_model.txt' if model_type == 'lightgbm' else 'trees.json'}"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(found.dump, media_type=media_type, headers=headers)

    async def lightgbm_importances(request: Request) -> Response:
        found = find_model("lightgbm", request)
        return found if isinstance(found, Response) else json(found.importances)

    def find_model(model_type: str, request: Request) -> FittedModel | Response:
        if config.model_type != model_type:
            return json({"detail": f"the models are of type {config.model_type}"}, 404)
        found = retraining.published.get(request.path_params["name"])
        return found or json({"detail": "no model has been published since the trainer started"}, 404)

    async def export(request: Request) -> Response:
        found = await asyncio.to_thread(_current_models, store)
        if not found:
            return json({"detail": "Models not ready"}, 503)
        return Response(await asyncio.to_thread(_archive, config, found), media_type="application/gzip")

    async def prefix_distribution(request: Request) -> Response:
        return json(_prefix_distribution(summarise((await window.targets["ttft"].data()).train)))

    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/model/download/info", download_info),
        Route("/model/export", export),
        Route("/models/list", models_list),
        Route("/model/{name}/xgb/json", trees),
        Route("/model/{name}/lgb/txt", lightgbm_text),
        Route("/model/{name}/lgb/importances", lightgbm_importances),
        Route("/model/{name}/info", info),
        Route("/model/{name}/download", download),
        Route("/debug/prefix_distribution", prefix_distribution),
    ]


def _endpoints(model_type: str) -> dict[str, Any]:
    """Return the endpoints that show models of this type."""
    if model_type == "bayesian_ridge":
        return {"coefficients": "/metrics"}
    if model_type == "lightgbm":
        texts = {f"{name}_model_txt": f"/model/{name}/lgb/txt" for name in TARGETS}
        return {"lightgbm": texts | {f"{name}_importances": f"/model/{name}/lgb/importances" for name in TARGETS}}
    return {"trees": {f"{name}_trees": f"/model/{name}/xgb/json" for name in TARGETS}}


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, retry_after(status), media_type="application/json")


def unread(error: BodyError) -> Response:
    return json({"detail": str(error)}, error.status)


def unprocessable(error: EntryError) -> Response:
    return json({"detail": [{"loc": error.location, "msg": str(error), "type": "value_error"}]}, 422)


def _current_models(store: ModelStore) -> dict[str, StoredModel]:
    """Read the models in force; return none of them if the store can't be read."""
    try:
        generation: Generation | None = store.current()
        return {name: store.read(generation, name) for name in generation.models} if generation else {}
    except (NotFoundError, StoreError):
        return {}


def _about(config: Config) -> dict[str, Any]:
    return {"model_type": config.model_type, "quantile": config.quantile, "objective_type": config.objective_type}


def _prediction(config: Config, ttft_ms: float, tpot_ms: float) -> dict[str, Any]:
    """Return the answer in llm-d's format, with a tenth of the prediction as its uncertainty, as its clients expect."""
    answer: dict[str, Any] = {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms}
    for name, value in (("ttft", ttft_ms), ("tpot", tpot_ms)):
        uncertainty = 0.1 * value
        answer[f"{name}_uncertainty"] = uncertainty
        answer[f"{name}_prediction_bounds"] = [max(0.0, value - 2 * uncertainty), value + 2 * uncertainty]
    return {**answer, "predicted_at": datetime.now(UTC), **_about(config)}


def _summary(stored: StoredModel | None) -> dict[str, Any]:
    if stored is None:
        return {"exists": False, "size_bytes": 0, "last_modified": None}
    manifest = stored.manifest
    return {"exists": True, "size_bytes": manifest.file.size_bytes, "last_modified": manifest.trained_at}


def _archive(config: Config, found: dict[str, StoredModel]) -> bytes:
    """Return a gzipped tar of the ONNX files, their manifests and metadata.json."""
    metadata = {
        "model_type": config.model_type,
        "quantile_alpha": config.quantile,
        "exported_at": datetime.now(UTC),
        **{f"{name}_samples": stored.manifest.train_samples for name, stored in found.items()},
    }
    files = {"metadata.json": msgspec.json.encode(metadata)}
    for name, stored in found.items():
        files[f"{name}.onnx"] = stored.onnx
        files[f"{name}.manifest.json"] = msgspec.json.encode(stored.manifest)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _prefix_distribution(summary: PrefixSummary | None) -> dict[str, Any]:
    if summary is None:
        return {"error": "No training samples available"}
    ranges = {
        text: {
            "count": found.count,
            "percentage": 100 * found.count / summary.rows,
            "avg_ttft_ms": found.mean_ttft_ms,
            "median_ttft_ms": found.median_ttft_ms,
        }
        for text, found in zip(RANGES, summary.ranges, strict=True)
    }
    overall = {"total_samples": summary.rows}
    scores = {f"{name}_prefix_score": value for name, value in summary.scores.items()}
    reading = "a lower TTFT in the higher ranges shows that prefix caching pays"
    return {
        "overall_stats": {**overall, **scores},
        "distribution_by_prefix_range": ranges,
        "interpretation": reading,
    }
