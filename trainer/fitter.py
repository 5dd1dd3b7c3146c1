"""The fitter: fits a job's models, exports them and judges them. `python -m trainer.fitter` serves another process."""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store import ROW_NAMES, SCHEMAS, Manifest, Output
from model_store.manifest import summary
from trainer.derivation import RISING, design_columns, design_matrix, monotone, raw_columns, trend_terms
from trainer.drift import find_drift, newest_rows, weights
from trainer.effects import feature_effects
from trainer.exceptions import ExportError, FitError
from trainer.export import GraphSpec, expected, export
from trainer.gate import (
    Verdict,
    check_jump,
    check_not_worse,
    check_parity,
    check_rising,
    check_sound,
    difference,
    losses,
    scores,
)
from trainer.graph import Graph
from trainer.job import LENGTH, Answer, FittedModel, Job, decode_job
from trainer.learners import Model, Training
from trainer.plausible import as_counted, limits_of
from trainer.quarantine import row_json
from trainer.robust_fit import RobustFit, robust_fit
from trainer.settings import FitSettings, JobSettings
from trainer.window import Rows, TargetData, prefix_buckets
from trainer.wire import Matrix

logger = logging.getLogger("headroom.trainer.fitter")

# The newest_rows training rows that the gate checks in addition to the holdout.
_PARITY_ROWS = 2_000
# Rows that a fit doubted and that are kept to look at.
_DOUBTED_SHOWN = 20
# Incremental fits extend a model up to this multiple of a whole fit's trees.
_TREE_LIMIT_FACTOR = 2
# Fits yield the CPU to the server that answers requests.
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class _PreviousFit:
    """A target's previous models, which a fit can extend.

    `whole_s_per_row`: the seconds per row of the last whole fit. `had_doubts`: the last fit doubted rows, so the next
    one most likely will.
    """

    models: Sequence[Model]
    settings: FitSettings
    whole_s_per_row: float
    had_doubts: bool

    def should_extend(self, rows: int, settings: JobSettings) -> bool:
        """Return true if a whole fit of `rows` rows would exceed the budget and the models may still grow."""
        return (
            self.settings == settings.fit
            and self.whole_s_per_row * rows > settings.budget_s
            and 0 < self.models[0].trees < _TREE_LIMIT_FACTOR * settings.fit.trees
        )


class Fitter:
    """Fits job after job, and keeps each target's models so that a later fit can extend them."""

    def __init__(self) -> None:
        self._last: dict[str, _PreviousFit] = {}

    def learn(self, job: Job) -> list[FittedModel]:
        """Fit a model for each target of the job; raise FitError or ExportError when one can't be made."""
        return [self._learn_target(name, data, job) for name, data in job.data.items()]

    def _learn_target(self, name: str, data: TargetData, job: Job) -> FittedModel:
        settings, names = job.settings, _input_names(name)
        outputs = tuple(Output(_output_name(name, q, i), quantile=q) for i, q in enumerate(settings.fit.targets))
        spec = GraphSpec(names, outputs, derive=name, floor=0.0, exponential=settings.fit.in_logarithms)
        served = Graph(job.served[name]) if name in job.served else None
        began_at = job.law_began_at.get(name, 0)
        rows = newest_rows(data, began_at)
        drift = (
            find_drift(rows, _nearest_to_median(served.outputs(ROW_NAMES, rows.x), settings.fit)) if served else None
        )
        logger.debug("stage: fit %s", name)
        started_at = time.perf_counter()
        fitted = self._fit(name, data.train, began_at, settings)
        is_change = drift is not None and drift.is_change(settings.drift_tolerance)
        if drift and is_change and not _explains_change(fitted.models, spec, rows, settings):
            began_at = drift.began_at
            fitted = self._fit(name, data.train, began_at, settings)
        models = fitted.models
        fitted_at = time.perf_counter()
        logger.debug("stage: export %s", name)
        manifest = _manifest(name, outputs, data, settings)
        effects = _effects(models, spec, data.train)
        onnx_bytes = export(models, spec, summary(manifest) | {"feature_effects": json.dumps(effects)})
        exported_at = time.perf_counter()
        verdict, found = _judge(fitted, spec, Graph(onnx_bytes), served, _with_holdout_since(data, began_at), settings)
        if not verdict.passed:
            self._last.pop(name, None)
        return FittedModel(
            manifest=msgspec.structs.replace(manifest, holdout_scores=found),
            onnx=onnx_bytes,
            refusal=verdict.reason,
            refused_for=verdict.failed,
            fit_s=fitted_at - started_at,
            export_s=exported_at - fitted_at,
            gate_s=time.perf_counter() - exported_at,
            incremental=fitted.incremental,
            trees=models[0].trees,
            importances=models[0].importances(design_columns(name)),
            effects=effects,
            intercept=models[0].intercept(),
            dump=models[0].dump(),
            drift_score=drift.score if drift else 0.0,
            law_began_at=began_at or None,
            law_factor=drift.factor if drift else 1.0,
            doubted_rows=int(fitted.doubted.sum()),
            doubted=_newest_doubted(data.train, fitted.doubted),
        )

    def _fit(self, name: str, train: Rows, began_at: int, settings: JobSettings) -> RobustFit:
        """Fit from scratch, or extend the previous models if that would take too long."""
        training = training_of(name, train, settings.fit, _weights(name, train, began_at, settings.weigh_prefixes))
        last, rows = self._last.get(name), len(train)
        extended = last if last is not None and last.should_extend(rows, settings) else None
        started_at = time.perf_counter()
        found = robust_fit(
            training,
            train,
            train.arrival >= began_at,
            settings.fit,
            limits_of(name, settings.allowed_outliers),
            extended.models if extended else (),
            expects_doubts=last is None or last.had_doubts,
        )
        took_s = time.perf_counter() - started_at
        s_per_row = extended.whole_s_per_row if extended else took_s / rows
        self._last[name] = _PreviousFit(found.models, settings.fit, s_per_row, bool(found.doubted.any()))
        return found


def training_of(target: str, rows: Rows, fit: FitSettings, weights: Matrix | None = None) -> Training:
    """Return the data that a target's models are fitted to."""
    return Training(
        design_matrix(target, _input_names(target), raw_columns(target, rows.x)),
        np.log(rows.y) if fit.in_logarithms else rows.y,
        weights,
        monotone(target),
        trend_terms(target),
    )


def _input_names(target: str) -> tuple[str, ...]:
    return tuple(feature.name for feature in SCHEMAS[target])


def _explains_change(models: Sequence[Model], spec: GraphSpec, rows: Rows, settings: JobSettings) -> bool:
    """Return true if freshly fitted models leave no change among the rows.

    In that case the law is the same. Only the situation has changed, to one that the served model had seldom seen.
    """
    answers = expected(models, design_matrix(spec.derive, spec.inputs, raw_columns(spec.derive, rows.x)), spec)
    left = find_drift(rows, _nearest_to_median(answers, settings.fit))
    return left is None or not left.is_change(settings.drift_tolerance)


def _effects(models: Sequence[Model], spec: GraphSpec, train: Rows) -> dict[str, float]:
    """Return by what share each input changes the first output."""

    def predict(rows: Matrix) -> Matrix:
        return expected(models[:1], design_matrix(spec.derive, spec.inputs, rows), first)[:, 0]

    first = replace(spec, outputs=spec.outputs[:1])
    return dict(feature_effects(predict, spec.inputs, raw_columns(spec.derive, train.x)))


def _nearest_to_median(answers: Matrix, settings: FitSettings) -> Matrix:
    """Select the output nearest to the median from `answers` [rows, outputs].

    Residuals against an upper quantile include a spread, and the spread differs between situations under one law.
    A served graph that was fitted with other settings may have fewer outputs; then the last one is taken.
    """
    distances = [abs((quantile or 0.5) - 0.5) for quantile in settings.targets]
    return answers[:, min(distances.index(min(distances)), answers.shape[1] - 1)]


def _weights(name: str, rows: Rows, began_at: int, weigh_prefixes: bool) -> Matrix | None:
    found = weights(rows, began_at) if began_at else None
    if name != "ttft" or not weigh_prefixes:
        return found
    buckets = prefix_buckets(rows.x[:, ROW_NAMES.index("prefix_cache_score")]).astype(np.int64)
    by_bucket = 1 / np.maximum(np.bincount(buckets), 1)
    balanced = by_bucket[buckets].astype(np.float32)
    balanced /= balanced.mean()
    return balanced if found is None else balanced * found


def _output_name(target: str, quantile: float | None, position: int) -> str:
    """Return `ttft_ms` for the first output of a target, and a name with the percentile for the others."""
    return f"{target}_ms" if position == 0 else f"{target}_p{100 * (quantile or 0):g}_ms".replace(".", "_")


def _newest_doubted(train: Rows, is_doubted: NDArray[np.bool_]) -> list[dict[str, float | None]]:
    """Return the newest rows that the fit doubted, newest first, as JSON."""
    doubted = np.flatnonzero(is_doubted)
    newest = doubted[np.argsort(train.arrival[doubted])[::-1][:_DOUBTED_SHOWN]]
    return [row_json(x) | {"latency_ms": float(y)} for x, y in zip(train.x[newest], train.y[newest], strict=True)]


def _manifest(name: str, outputs: tuple[Output, ...], data: TargetData, settings: JobSettings) -> Manifest:
    return Manifest(
        model=name,
        inputs=SCHEMAS[name],
        outputs=outputs,
        model_type=settings.fit.model_type,
        objective=settings.fit.objective,
        train_samples=len(data.train),
        holdout_samples=len(data.holdout),
        trained_at=datetime.now(UTC),
        trainer_id=settings.trainer_id,
    )


def _with_holdout_since(data: TargetData, began_at: int) -> TargetData:
    """Drop held-out rows from before the present law: how well a model predicts those does not matter."""
    holdout, older = (rows.part(rows.arrival >= began_at) for rows in (data.holdout, data.older))
    return TargetData(data.train, holdout, older)


def _judge(
    fitted: RobustFit,
    spec: GraphSpec,
    graph: Graph,
    served: Graph | None,
    data: TargetData,
    settings: JobSettings,
) -> tuple[Verdict, dict[str, float]]:
    """Return the gate's verdict, and the scores on the held-out rows that can be believed.

    The verdict counts held-out rows as the fit would. The scores take their latencies as they were observed.
    """
    rows = raw_columns(spec.derive, np.concatenate([data.holdout.x, data.train.x[-_PARITY_ROWS:]]))
    verdict = check_parity(difference(graph.outputs(spec.inputs, rows), _expected(fitted, spec, rows)))
    if verdict.passed:
        verdict = check_rising(graph.predict, spec.inputs, rows[:_PARITY_ROWS], RISING.get(spec.derive, ()))
    medians = _medians(data.holdout, fitted.median, spec)
    believed, counted_ms = as_counted(data.holdout.y, medians, limits_of(spec.derive, settings.allowed_outliers))
    holdout, medians, counted_ms = data.holdout.part(believed), medians[believed], counted_ms[believed]
    answers = graph.outputs(spec.inputs, raw_columns(spec.derive, holdout.x))
    if verdict.passed and settings.fit.in_logarithms:
        quantile = spec.outputs[0].quantile or 0.5
        simple = medians * np.exp(np.quantile(fitted.residuals, quantile)).astype(np.float32)
        verdict = check_sound(*(losses(predicted, counted_ms, quantile) for predicted in (answers[:, 0], simple)))
    if verdict.passed and served is not None:
        verdict = _compare(answers[:, 0], replace(holdout, y=counted_ms), graph, served, data.older, spec, settings)
    found = scores(answers[:, 0], holdout.y, spec.outputs[0].quantile)
    for output, column in zip(spec.outputs[1:], answers.T[1:], strict=True):
        more = scores(column, holdout.y, output.quantile)
        found |= {f"{score}_{output.name}": value for score, value in more.items()}
    return verdict, found


def _expected(fitted: RobustFit, spec: GraphSpec, rows: Matrix) -> Matrix:
    return expected(fitted.models, design_matrix(spec.derive, spec.inputs, rows), spec)


def _medians(rows: Rows, median: Model, spec: GraphSpec) -> Matrix:
    design = design_matrix(spec.derive, spec.inputs, raw_columns(spec.derive, rows.x))
    return np.asarray(np.exp(median.predict(design)), dtype=np.float32)


def _compare(
    answers: Matrix, holdout: Rows, graph: Graph, served: Graph, older: Rows, spec: GraphSpec, settings: JobSettings
) -> Verdict:
    """Compare a candidate with the served model, on held-out rows and on older ones."""
    before, quantile = served.predict(ROW_NAMES, holdout.x), spec.outputs[0].quantile
    candidate, present = (losses(predicted, holdout.y, quantile) for predicted in (answers, before))
    verdict = check_not_worse(candidate, present, settings.tolerance)
    if not verdict.passed:
        return verdict
    medians = _nearest_to_median(served.outputs(ROW_NAMES, older.x), settings.fit)
    believed, counted_ms = as_counted(older.y, medians, limits_of(spec.derive, settings.allowed_outliers))
    older = replace(older, y=counted_ms).part(believed)
    return check_jump(
        np.concatenate([answers, graph.predict(spec.inputs, raw_columns(spec.derive, older.x))]),
        np.concatenate([before, served.predict(ROW_NAMES, older.x)]),
        np.concatenate([holdout.y, older.y]),
        quantile,
        settings.tolerance,
    )


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer jobs until the source ends. Each message is a length and MessagePack."""
    fitter = Fitter()
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        job = decode_job(source.read(LENGTH.unpack(head)[0]))
        try:
            answer = Answer(fitter.learn(job))
        except (FitError, ExportError) as error:
            answer = Answer(error=str(error))
        except Exception as error:  # an unexpected error of a library fails this pass, not the process
            logger.exception("a fit failed")
            answer = Answer(error=f"{type(error).__name__}: {error}")
        message = msgspec.msgpack.encode(answer)
        sink.write(LENGTH.pack(len(message)) + message)
        sink.flush()


def main() -> None:
    logging.basicConfig(level=sys.argv[1], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Standard output carries the answers. Libraries sometimes print to it, so their output goes to standard error.
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        os.nice(_NICENESS)
        # The server may have ended during a fit.
        with suppress(BrokenPipeError):
            serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
