"""One training pass: have models fitted, publish those that passed the gate. Blocking, and meant for a thread."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from model_store import SCHEMAS, Draft, Generation, ModelStore, StoreError
from trainer.exceptions import ExportError, FitError
from trainer.job import Job, Learnt
from trainer.settings import JobSettings
from trainer.window import TargetData

logger = logging.getLogger("headroom.trainer")

Learn = Callable[[Job], Sequence[Learnt]]


@dataclass(frozen=True, slots=True)
class PassSettings:
    """`min_samples_fresh` counts while the store is empty, `min_samples` from then on."""

    job: JobSettings
    min_samples: int
    min_samples_fresh: int
    keep_generations: int


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass did. `outcome` is published, refused, too_few_samples, standby or failed.

    `learnt` are all models that were fitted, by target, and `published` those of them that are in force now. A pass
    that failed did so at `failed_at`: lead, fit or publish.
    """

    outcome: str
    reason: str = ""
    generation: Generation | None = None
    learnt: Mapping[str, Learnt] = field(default_factory=dict)
    published: Mapping[str, Learnt] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed_at: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        return {name: learnt.manifest.holdout_scores for name, learnt in self.learnt.items()}


def run_pass(
    data: Mapping[str, TargetData],
    served: Mapping[str, bytes],
    law_began_at: Mapping[str, int],
    store: ModelStore,
    settings: PassSettings,
    learn: Learn,
) -> PassResult:
    """Has every target fitted that has enough samples, and publishes what passes the gate as one generation."""
    started_at = time.perf_counter()
    stage = "lead"
    try:
        if not store.lead(settings.job.trainer_id):
            return PassResult("standby", f"another trainer publishes in this store: {store.leader()}")
        fewest = settings.min_samples if served else settings.min_samples_fresh
        ready = {name: target for name, target in data.items() if len(target.train) >= fewest}
        if not ready:
            counts = ", ".join(f"{name} {len(target.train)}" for name, target in data.items())
            return PassResult("too_few_samples", f"{fewest} samples are needed, there are: {counts}")
        stage = "fit"
        learnt = {model.manifest.model: model for model in learn(Job(ready, settings.job, served, law_began_at))}
        passed = {name: model for name, model in learnt.items() if not model.refusal}
        stage, publish_at = "publish", time.perf_counter()
        generation = _publish(store, list(passed.values()), settings.keep_generations) if passed else None
    except (StoreError, FitError, ExportError) as error:
        return PassResult("failed", str(error), failed_at=stage)
    ended_at = time.perf_counter()
    return PassResult(
        outcome="published" if generation else "refused",
        reason="; ".join(f"{name}: {model.refusal}" for name, model in learnt.items() if model.refusal),
        generation=generation,
        learnt=learnt,
        published=passed,
        seconds={
            "fit": sum(model.fit_s for model in learnt.values()),
            "export": sum(model.export_s for model in learnt.values()),
            "gate": sum(model.gate_s for model in learnt.values()),
            "publish": ended_at - publish_at,
            "pass": ended_at - started_at,
        },
    )


def read_graphs(store: ModelStore, generation: Generation) -> dict[str, bytes]:
    """The graphs of a generation, for the next pass to be compared with."""
    return {name: store.read(generation, name).onnx for name in generation.models if name in SCHEMAS}


def _publish(store: ModelStore, models: Sequence[Learnt], keep: int) -> Generation:
    logger.debug("stage: publish")
    generation = store.publish([Draft(model.manifest, model.onnx) for model in models])
    logger.debug("stage: collect")
    store.collect(keep)
    logger.debug("stage: ingest")
    return generation
