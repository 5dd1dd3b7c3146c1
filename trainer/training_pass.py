"""One training pass: fit models, and publish those that pass the gate. Blocking; run it in a thread."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from model_store import SCHEMAS, Draft, Generation, ModelStore, StoreError
from trainer.exceptions import ExportError, FitError
from trainer.job import FittedModel, Job
from trainer.settings import JobSettings
from trainer.window import TargetData

logger = logging.getLogger("headroom.trainer")

# The largest model of another writer to compare with. It is the predictor's limit.
_LARGEST_GRAPH_BYTES = 64 << 20
Learn = Callable[[Job], Sequence[FittedModel]]


@dataclass(frozen=True, slots=True)
class PassSettings:
    """The settings of a pass. `min_samples_fresh` applies while the store is empty, `min_samples` afterwards.

    `canary_rows`: held-out rows on which the canary compares a published model with its predecessor; 0: never.
    """

    job: JobSettings
    min_samples: int
    min_samples_fresh: int
    keep_generations: int
    canary_rows: int = 0


@dataclass(frozen=True, slots=True)
class PassResult:
    """The result of a pass. `outcome` is published, refused, too_few_samples, standby or failed.

    `fitted` holds all fitted models by target, `published` those that were published. `failed_at` is the stage at
    which a failed pass failed: lead, fit, publish, or pass for an unexpected error.
    """

    outcome: str
    reason: str = ""
    generation: Generation | None = None
    fitted: Mapping[str, FittedModel] = field(default_factory=dict)
    published: Mapping[str, FittedModel] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed_at: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        return {name: fitted.manifest.holdout_scores for name, fitted in self.fitted.items()}


def run_pass(
    data: Mapping[str, TargetData],
    served: Mapping[str, bytes],
    law_began_at: Mapping[str, int],
    store: ModelStore,
    settings: PassSettings,
    learn: Learn,
) -> PassResult:
    """Fit every target that has enough samples, and publish the models that pass the gate as one generation."""
    started_at = time.perf_counter()
    stage = "lead"
    try:
        if not store.lead(settings.job.trainer_id):
            return PassResult("standby", f"another trainer publishes in this store: {store.leader()}")
        fewest = settings.min_samples if served else settings.min_samples_fresh
        ready = {name: target for name, target in data.items() if len(target.train) >= fewest}
        if not ready:
            counts = ", ".join(f"{name} {len(target.train)}" for name, target in data.items())
            return PassResult("too_few_samples", f"{fewest} samples are needed; there are: {counts}")
        stage = "fit"
        fitted = {model.manifest.model: model for model in learn(Job(ready, settings.job, served, law_began_at))}
        passed = {name: model for name, model in fitted.items() if not model.refusal}
        stage, publish_at = "publish", time.perf_counter()
        generation = publish(store, list(passed.values()), settings.keep_generations) if passed else None
    except (StoreError, FitError, ExportError) as error:
        return PassResult("failed", str(error), failed_at=stage)
    ended_at = time.perf_counter()
    return PassResult(
        outcome="published" if generation else "refused",
        reason="; ".join(f"{name}: {model.refusal}" for name, model in fitted.items() if model.refusal),
        generation=generation,
        fitted=fitted,
        published=passed,
        seconds={
            "fit": sum(model.fit_s for model in fitted.values()),
            "export": sum(model.export_s for model in fitted.values()),
            "gate": sum(model.gate_s for model in fitted.values()),
            "publish": ended_at - publish_at,
            "pass": ended_at - started_at,
        },
    )


def read_graphs(store: ModelStore, generation: Generation) -> dict[str, bytes]:
    """Read the graphs of a generation, with which the next pass compares its models."""
    names = (name for name in generation.models if name in SCHEMAS)
    return {name: store.read(generation, name, _LARGEST_GRAPH_BYTES).onnx for name in names}


def publish(store: ModelStore, models: Sequence[FittedModel], keep: int) -> Generation:
    """Publish models as one generation, and remove old ones."""
    logger.debug("stage: publish")
    generation = store.publish([Draft(model.manifest, model.onnx) for model in models])
    logger.debug("stage: collect")
    store.collect(keep)
    logger.debug("stage: ingest")
    return generation
