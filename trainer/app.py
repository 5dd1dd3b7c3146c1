"""The trainer's HTTP application: samples, flushes, status, health and metrics, compatible with llm-d's server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model_store import Trust, open_store
from serving.bodies import BodyError, BodyMemory, read_body
from serving.error_log import ErrorLog
from trainer import models_api
from trainer.config import Config
from trainer.exceptions import BusyError, EntryError, JournalError
from trainer.fitting_process import FittingProcess
from trainer.ingestion import Ingestion
from trainer.job import FittedModel
from trainer.journal import Journal
from trainer.large_batches import LargeBatches
from trainer.metrics import Metrics
from trainer.models_api import SMALL_BODY_BYTES, json, unprocessable, unread
from trainer.retraining import Retraining
from trainer.training_pass import PassResult
from trainer.window import Window
from trainer.wire import FlushRequest, decode_flush

logger = logging.getLogger("headroom.trainer")

# A batch that is sent twice with the same key is counted once.
_KEY_HEADER = "idempotency-key"
_JOURNAL_INTERVAL_S = 1.0
# So many of the largest bodies may arrive at the same time.
_BODIES_AT_ONCE = 4


def create_app(config: Config) -> Starlette:
    """Create the application of one model store. It trains while it runs. Raise StoreError for an unusable location."""
    window = Window(config.max_training_data_size_per_bucket, config.test_train_ratio, config.max_test_data_size)
    metrics = Metrics(window, config.fit)
    store = open_store(config.model_store, Trust(config.signing_key_file, config.verify_key_file))
    fitting = FittingProcess()
    settings = config.pass_settings()
    retraining = Retraining(window, store, metrics, settings, config.retraining_interval_sec, fitting.learn)
    journal = Journal(Path(config.sample_journal)) if config.sample_journal else None
    ingestion = Ingestion(window, journal, config.max_source_share)
    large_batches = LargeBatches()
    memory = BodyMemory(_BODIES_AT_ONCE * config.max_body_bytes)
    metrics.watch_quarantine(ingestion.quarantine.counts)
    journal_errors = ErrorLog(logger)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        restored = ingestion.restore()
        if config.sample_journal:
            logger.info("restored %d samples from %s", restored, config.sample_journal)
        await asyncio.to_thread(fitting.start)
        background = (retraining.run(), retraining.keep_lead(), _maintain_journal(ingestion))
        tasks = [asyncio.create_task(coroutine) for coroutine in background]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fitting.stop()
        await retraining.end()
        await ingestion.maintain_journal()

    async def add(request: Request) -> Response:
        started_at = time.perf_counter()
        try:
            body = await read_body(request.receive, config.max_body_bytes, memory)
        except BodyError as error:
            metrics.rows.labels("refused").inc()
            return unread(error)
        try:
            samples = await large_batches.decode(body, request.headers.get("content-type", ""))
        except EntryError as error:
            metrics.rows.labels("refused").inc()
            return unprocessable(error)
        except BusyError as error:
            metrics.failures.labels("busy").inc()
            return json({"detail": str(error)}, 429)
        try:
            source = request.client.host if request.client else ""
            new = await ingestion.accept(request.headers.get(_KEY_HEADER, ""), samples, source)
        except JournalError as error:
            journal_errors.failed(error, "refused samples: %s", error)
            metrics.failures.labels("journal").inc()
            metrics.rows.labels("not_kept").inc(len(samples))
            return json({"detail": str(error)}, 503)
        journal_errors.succeeded()
        metrics.record_batch(len(samples), new, time.perf_counter() - started_at)
        return json({"message": f"Accepted {len(samples)} training samples."}, 202)

    async def flush(request: Request) -> Response:
        try:
            asked = decode_flush(await read_body(request.receive, SMALL_BODY_BYTES, memory))
        except BodyError as error:
            return unread(error)
        except EntryError as error:
            return unprocessable(error)
        answer = _flush(window, asked)
        try:
            await ingestion.rewrite_journal()
        except JournalError as error:
            return json({"detail": str(error)}, 503)
        return json(answer)

    async def status(request: Request) -> Response:
        return json(_status(window, retraining) | {"quarantined": ingestion.quarantine.counts})

    async def history(request: Request) -> Response:
        return json({"generation": retraining.generation, "passes": retraining.history.passes()})

    async def quarantined(request: Request) -> Response:
        last = retraining.last_pass
        doubted = {name: model.doubted for name, model in last.fitted.items()} if last else {}
        counts, newest = ingestion.quarantine.counts, ingestion.quarantine.newest()
        return json({"quarantined": counts, "newest_quarantined": newest, "newest_doubted": doubted})

    async def healthz(request: Request) -> Response:
        return json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        if not retraining.ready:
            return json({"detail": "Models not ready: no generation has been published yet"}, 503)
        return json({"status": "ready"})

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def root(request: Request) -> Response:
        about = {"model_type": config.model_type, "quantile": config.quantile, "objective_type": config.objective_type}
        return json({"message": "Headroom latency trainer", **about, "description": "Fits TTFT and TPOT models"})

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/add_training_data_bulk", add, methods=["POST"]),
            Route("/flush", flush, methods=["POST"]),
            Route("/data/status", status),
            Route("/data/history", history),
            Route("/data/quarantine", quarantined),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_page),
            Route("/", root),
            *models_api.routes(config, window, store, retraining, memory),
        ],
    )


async def _maintain_journal(ingestion: Ingestion) -> None:
    while True:
        await asyncio.sleep(_JOURNAL_INTERVAL_S)
        await ingestion.maintain_journal()


def _flush(window: Window, asked: FlushRequest) -> dict[str, Any]:
    counts = {}
    for name, target in window.targets.items():
        counts[f"{name}_training_samples_flushed"] = target.train_count if asked.flush_training_data else 0
        counts[f"{name}_test_samples_flushed"] = target.holdout_count if asked.flush_test_data else 0
        if asked.flush_training_data:
            target.clear_training()
        if asked.flush_test_data:
            target.clear_holdout()
    wanted = {
        "training data": asked.flush_training_data,
        "test data": asked.flush_test_data,
        "metrics": asked.flush_metrics,
    }
    flushed = [part for part, asked_for in wanted.items() if asked_for]
    return {
        "success": True,
        "flushed_at": datetime.now(UTC),
        "reason": asked.reason,
        **counts,
        "metrics_cleared": asked.flush_metrics,
        "message": f"Successfully flushed: {', '.join(flushed)}" if flushed else "No data flushed",
    }


def _status(window: Window, retraining: Retraining) -> dict[str, Any]:
    train = {f"{name}_samples": target.train_count for name, target in window.targets.items()}
    test = {f"{name}_samples": target.holdout_count for name, target in window.targets.items()}
    last = retraining.last_pass
    buckets = window.targets["ttft"].bucket_counts().items()
    return {
        "training_data": {**train, "total_samples": sum(train.values())},
        "test_data": {**test, "total_samples": sum(test.values())},
        "metrics": {f"{name}_scores_count": int(bool(last and last.scores.get(name))) for name in window.targets},
        "bucket_distribution": {f"queue_{q}_cache_{c}_prefix_{p}": count for (q, c, p), count in buckets},
        "ensemble": {"ensemble_mode": False, "ensemble_active": False},
        "model_ready": retraining.ready,
        "last_retrain": last.at if last else None,
        "generation": retraining.generation,
        "last_pass": _describe(last) if last else None,
        "refused": [_describe(result) for result in retraining.refused],
    }


def _describe(result: PassResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "reason": result.reason,
        "generation": result.generation.generation if result.generation else None,
        "models": {name: _describe_model(model) for name, model in result.fitted.items()},
        "scores": result.scores,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "at": result.at,
    }


def _describe_model(model: FittedModel) -> dict[str, Any]:
    return {
        "model_type": model.manifest.model_type,
        "trees": model.trees,
        "incremental": model.incremental,
        "refusal": model.refusal or None,
        "drift_score": round(model.drift_score, 2),
        "doubted_rows": model.doubted_rows,
    }
