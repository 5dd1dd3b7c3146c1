"""The training server's endpoints about models. Where one hands out a model's file, it hands out ONNX."""

import asyncio
import io
import tarfile
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import ROW_NAMES, Generation, ModelStore, NotFoundError, StoredModel, StoreError
from trainer.config import Config
from trainer.exceptions import EntryError
from trainer.retraining import Retraining
from trainer.window import Window
from trainer.wire import decode_prediction

TARGETS = ("ttft", "tpot")
# What clients of the training server may ask for and never find: those learners publish no such thing.
_ALWAYS_ABSENT = ("ttft_gated", "tpot_gated")
_PREFIX_RANGES = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")


def routes(config: Config, window: Window, store: ModelStore, retraining: Retraining) -> list[Route]:
    async def predict(request: Request) -> Response:
        try:
            row = decode_prediction(await request.body())
        except EntryError as error:
            return unprocessable(error)
        if not all(name in retraining.served for name in TARGETS):
            return json({"detail": "Models not ready"}, 503)
        ttft, tpot = (float(max(retraining.served[name].predict(ROW_NAMES, row)[0], 0)) for name in TARGETS)
        return json(_prediction(config, ttft, tpot))

    async def download_info(request: Request) -> Response:
        ready = {f"{name}_model_ready": name in retraining.served for name in TARGETS}
        trees = {f"{name}_trees": f"/model/{name}/xgb/json" for name in TARGETS}
        return json(
            {
                **_about(config),
                "available_endpoints": {"trees": trees},
                "model_status": ready,
                "evaluation_info": {
                    "quantile_loss": "pinball loss on held-out samples, in ms",
                    "coverage_percent": "share of held-out samples at or below their prediction",
                    "violation_rate_percent": "share of held-out samples above their prediction",
                },
            }
        )

    async def models_list(request: Request) -> Response:
        found = await asyncio.to_thread(_all, store)
        models = {name: _summary(found.get(name)) for name in (*TARGETS, *_ALWAYS_ABSENT)}
        scores = {name: stored.manifest.holdout_scores for name, stored in found.items()}
        return json(
            {"models": models, **_about(config), "server_time": datetime.now(UTC), "evaluation_metrics": scores}
        )

    async def info(request: Request) -> Response:
        name = request.path_params["name"]
        stored = (await asyncio.to_thread(_all, store)).get(name)
        if stored is None:
            return json({"detail": f"Model {name} not found"}, 404)
        manifest = stored.manifest
        path = f"{store.location}/{name}/{manifest.version}/{manifest.file.name}"
        quantile = manifest.outputs[0].quantile
        about = {"model_type": manifest.model_type, "quantile": quantile, "version": manifest.version}
        return json({"model_name": name, "path": path, **_summary(stored), **about})

    async def download(request: Request) -> Response:
        name = request.path_params["name"]
        stored = (await asyncio.to_thread(_all, store)).get(name)
        if stored is None:
            return json({"detail": f"Model {name} not found"}, 404)
        headers = {
            "content-disposition": f'attachment; filename="{name}.onnx"',
            "etag": f'"{stored.manifest.file.sha256}"',
        }
        return Response(stored.onnx, media_type="application/octet-stream", headers=headers)

    async def trees(request: Request) -> Response:
        booster = retraining.boosters.get(request.path_params["name"])
        if booster is None:
            return json({"detail": "no trees: no model was fitted since the start"}, 404)
        return Response(
            b"[" + ",".join(booster.get_dump(dump_format="json")).encode() + b"]", media_type="application/json"
        )

    async def absent(request: Request) -> Response:
        return json({"detail": f"the models are of type {config.model_type}"}, 404)

    async def export(request: Request) -> Response:
        found = await asyncio.to_thread(_all, store)
        if not found:
            return json({"detail": "Models not ready"}, 503)
        return Response(await asyncio.to_thread(_archive, config, found), media_type="application/gzip")

    async def prefix_distribution(request: Request) -> Response:
        return json(_prefix_distribution(window))

    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/model/download/info", download_info),
        Route("/model/export", export),
        Route("/models/list", models_list),
        Route("/model/{name}/xgb/json", trees),
        Route("/model/{name}/lgb/txt", absent),
        Route("/model/{name}/lgb/importances", absent),
        Route("/model/{name}/info", info),
        Route("/model/{name}/download", download),
        Route("/debug/prefix_distribution", prefix_distribution),
    ]


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def unprocessable(error: EntryError) -> Response:
    return json({"detail": [{"loc": error.location, "msg": str(error), "type": "value_error"}]}, 422)


def _all(store: ModelStore) -> dict[str, StoredModel]:
    """The models in force; none of them when the store can't be read."""
    try:
        generation: Generation | None = store.current()
        return {name: store.read(generation, name) for name in generation.models} if generation else {}
    except (NotFoundError, StoreError):
        return {}


def _about(config: Config) -> dict[str, Any]:
    return {"model_type": config.model_type, "quantile": config.quantile, "objective_type": config.objective_type}


def _prediction(config: Config, ttft_ms: float, tpot_ms: float) -> dict[str, Any]:
    """The training server's flavour: a tenth of the prediction stands for its uncertainty, as its clients expect."""
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
    """A gzipped tar of the ONNX files, their manifests, and what they are."""
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


def _prefix_distribution(window: Window) -> dict[str, Any]:
    data = window.targets["ttft"].data()
    scores = data.train_x[:, ROW_NAMES.index("prefix_cache_score")]
    if not len(scores):
        return {"error": "No training samples available"}
    buckets = np.clip((scores * len(_PREFIX_RANGES)).astype(int), 0, len(_PREFIX_RANGES) - 1)
    ranges = {}
    for index, text in enumerate(_PREFIX_RANGES):
        inside = buckets == index
        mean = float(data.train_y[inside].mean()) if inside.any() else None
        ranges[text] = {"count": int(inside.sum()), "percentage": float(inside.mean() * 100), "avg_ttft_ms": mean}
    stats = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
    overall = {"total_samples": len(scores), **{f"{name}_prefix_score": float(value) for name, value in stats.items()}}
    reading = "a lower TTFT in the higher ranges shows that prefix caching pays"
    return {"overall_stats": overall, "distribution_by_prefix_range": ranges, "interpretation": reading}
