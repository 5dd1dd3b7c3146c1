"""One training pass: fit, export, gate, publish. Blocking, and meant for a thread of its own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import numpy as np
import xgboost as xgb

from model_store import ROW_NAMES, SCHEMAS, Draft, Generation, Manifest, ModelStore, Output, StoreError
from model_store.manifest import summary
from trainer.derivation import RISING, design_matrix, monotone
from trainer.exceptions import ExportError
from trainer.export import GraphSpec, export
from trainer.fitting import FitSettings, fit, predict
from trainer.gate import Verdict, check_not_worse, check_parity, check_rising, difference, losses, scores
from trainer.graph import Graph
from trainer.window import TargetData
from trainer.wire import Matrix

_PARITY_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class PassSettings:
    fit: FitSettings
    min_samples: int
    tolerance: float
    keep_generations: int
    trainer_id: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted model on its way through the gate."""

    draft: Draft
    booster: xgb.Booster
    graph: Graph
    verdict: Verdict
    fit_s: float
    export_s: float


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass did. `outcome` is published, refused, too_few_samples, standby or failed."""

    outcome: str
    reason: str = ""
    generation: int | None = None
    published: Mapping[str, Candidate] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def run_pass(
    data: Mapping[str, TargetData], served: Mapping[str, Graph], store: ModelStore, settings: PassSettings
) -> PassResult:
    """Fits every target that has enough samples, and publishes those that pass the gate as one generation."""
    started_at = time.perf_counter()
    try:
        if not store.lead(settings.trainer_id):
            return PassResult("standby", f"another trainer publishes in this store: {store.leader()}")
    except StoreError as error:
        return PassResult("failed", str(error))
    ready = {name: target for name, target in data.items() if len(target.train_y) >= settings.min_samples}
    if not ready:
        counts = ", ".join(f"{name} {len(target.train_y)}" for name, target in data.items())
        return PassResult("too_few_samples", f"{settings.min_samples} samples are needed, there are: {counts}")
    try:
        candidates = {name: _candidate(name, target, served.get(name), settings) for name, target in ready.items()}
        passed = {name: candidate for name, candidate in candidates.items() if candidate.verdict.passed}
        publish_at = time.perf_counter()
        generation = _publish(store, passed, settings.keep_generations) if passed else None
    except (StoreError, ExportError) as error:
        return PassResult("failed", str(error))
    ended_at = time.perf_counter()
    seconds = {
        "fit": sum(candidate.fit_s for candidate in candidates.values()),
        "export": sum(candidate.export_s for candidate in candidates.values()),
        "publish": ended_at - publish_at,
        "pass": ended_at - started_at,
    }
    refused = {name: c.verdict.reason for name, c in candidates.items() if not c.verdict.passed}
    return PassResult(
        outcome="published" if generation else "refused",
        reason="; ".join(f"{name}: {reason}" for name, reason in refused.items()),
        generation=generation.generation if generation else None,
        published=passed,
        scores={name: candidate.draft.manifest.holdout_scores for name, candidate in candidates.items()},
        seconds=seconds,
    )


def read_served(store: ModelStore) -> tuple[Generation | None, dict[str, Graph]]:
    """The models of the generation in force, for the first pass to be compared with."""
    generation = store.current()
    if generation is None:
        return None, {}
    return generation, {name: Graph(store.read(generation, name).onnx) for name in generation.models if name in SCHEMAS}


def _candidate(name: str, data: TargetData, served: Graph | None, settings: PassSettings) -> Candidate:
    inputs = SCHEMAS[name]
    names = tuple(feature.name for feature in inputs)
    columns = [ROW_NAMES.index(column) for column in names]
    train_x, holdout_x = data.train_x[:, columns], data.holdout_x[:, columns]
    started_at = time.perf_counter()
    booster = fit(design_matrix(name, names, train_x), data.train_y, settings.fit, monotone(name))
    fitted_at = time.perf_counter()
    manifest = Manifest(
        model=name,
        inputs=inputs,
        outputs=(Output(f"{name}_ms", quantile=settings.fit.quantile),),
        model_type="xgboost",
        objective=settings.fit.objective,
        train_samples=len(data.train_y),
        holdout_samples=len(data.holdout_y),
        trained_at=datetime.now(UTC),
        trainer_id=settings.trainer_id,
    )
    logarithms = settings.fit.in_logarithms
    spec = GraphSpec(names, f"{name}_ms", derive=name, floor=0.0, exponential=logarithms)
    onnx_bytes = export(booster, spec, summary(manifest))
    graph = Graph(onnx_bytes)
    exported_at = time.perf_counter()
    rows = np.concatenate([holdout_x, train_x[-_PARITY_ROWS:]])
    answered = predict(booster, design_matrix(name, names, rows))
    expected = np.maximum(np.exp(answered) if logarithms else answered, 0)
    answers = graph.predict(names, rows)
    verdict = check_parity(difference(answers, expected))
    predicted = answers[: len(holdout_x)]
    if verdict.passed:
        verdict = check_rising(graph.predict, names, rows[:_PARITY_ROWS], RISING.get(name, ()))
    if verdict.passed and served is not None:
        verdict = _compare(predicted, served.predict(ROW_NAMES, data.holdout_x), data.holdout_y, settings)
    found = scores(predicted, data.holdout_y, settings.fit.quantile)
    manifest = msgspec.structs.replace(manifest, holdout_scores=found)
    return Candidate(
        Draft(manifest, onnx_bytes), booster, graph, verdict, fitted_at - started_at, exported_at - fitted_at
    )


def _compare(candidate: Matrix, served: Matrix, actual: Matrix, settings: PassSettings) -> Verdict:
    quantile = settings.fit.quantile
    return check_not_worse(losses(candidate, actual, quantile), losses(served, actual, quantile), settings.tolerance)


def _publish(store: ModelStore, passed: Mapping[str, Candidate], keep: int) -> Generation:
    generation = store.publish([candidate.draft for candidate in passed.values()])
    store.collect(keep)
    return generation
