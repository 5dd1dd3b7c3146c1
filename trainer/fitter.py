"""From rows to models behind the gate: fit, export, judge. Run as a module it does so for another process."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec
import numpy as np

from model_store import ROW_NAMES, SCHEMAS, Manifest, Output
from model_store.manifest import summary
from trainer.derivation import RISING, design_columns, design_matrix, monotone, raw_columns
from trainer.drift import find_drift, newest, weights
from trainer.exceptions import ExportError, FitError
from trainer.export import GraphSpec, expected, export
from trainer.gate import Verdict, check_not_worse, check_parity, check_rising, difference, losses, scores
from trainer.graph import Graph
from trainer.job import LENGTH, Answer, Job, Learnt, decode_job
from trainer.learners import Model, Training, fit
from trainer.settings import FitSettings, JobSettings
from trainer.window import Rows, TargetData, prefix_buckets
from trainer.wire import Matrix

logger = logging.getLogger("headroom.trainer.fitter")

_PARITY_ROWS = 2_000
# An incremental fit adds to the last one, until there are so many times the trees that a whole one would have.
_MOST_TREES = 2
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class _Last:
    """A target's last models, to go on from, and what a whole fit took of each row."""

    models: Sequence[Model]
    settings: FitSettings
    whole_s_per_row: float

    def is_to_go_on(self, rows: int, settings: JobSettings) -> bool:
        """Whether a whole fit of so many rows would take too long, and these may still grow."""
        return (
            self.settings == settings.fit
            and self.whole_s_per_row * rows > settings.budget_s
            and 0 < self.models[0].trees < _MOST_TREES * settings.fit.trees
        )


class Fitter:
    """Learns job after job, and remembers the last models of each target."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def learn(self, job: Job) -> list[Learnt]:
        """A model for each target of the job. FitError or ExportError when one can't be made."""
        return [self._target(name, data, job) for name, data in job.data.items()]

    def _target(self, name: str, data: TargetData, job: Job) -> Learnt:
        settings, names = job.settings, _names(name)
        outputs = tuple(Output(_output_name(name, q, i), quantile=q) for i, q in enumerate(settings.fit.targets))
        spec = GraphSpec(names, outputs, derive=name, floor=0.0, exponential=settings.fit.in_logarithms)
        served = Graph(job.served[name]) if name in job.served else None
        began_at = job.law_began_at.get(name, 0)
        rows = newest(data, began_at)
        drift = find_drift(rows, _middle(served.outputs(ROW_NAMES, rows.x), settings.fit)) if served else None
        logger.debug("stage: fit %s", name)
        started_at = time.perf_counter()
        models, incremental = self._fit(name, data.train, began_at, settings)
        if drift and drift.is_change(settings.drift_tolerance) and not _explain(models, spec, rows, settings):
            began_at = drift.began_at
            models, incremental = self._fit(name, data.train, began_at, settings)
        fitted_at = time.perf_counter()
        logger.debug("stage: export %s", name)
        manifest = _manifest(name, outputs, data, settings)
        onnx_bytes = export(models, spec, summary(manifest))
        exported_at = time.perf_counter()
        verdict, found = _judge(models, spec, Graph(onnx_bytes), served, _since(data, began_at), settings)
        if not verdict.passed:
            self._last.pop(name, None)
        return Learnt(
            manifest=msgspec.structs.replace(manifest, holdout_scores=found),
            onnx=onnx_bytes,
            refusal=verdict.reason,
            refused_for=verdict.failed,
            fit_s=fitted_at - started_at,
            export_s=exported_at - fitted_at,
            gate_s=time.perf_counter() - exported_at,
            incremental=incremental,
            trees=models[0].trees,
            importances=models[0].importances(design_columns(name)),
            intercept=models[0].intercept(),
            dump=models[0].dump(),
            drift_score=drift.score if drift else 0.0,
            law_began_at=began_at or None,
            law_factor=drift.factor if drift else 1.0,
        )

    def _fit(self, name: str, train: Rows, began_at: int, settings: JobSettings) -> tuple[list[Model], bool]:
        """A whole fit, or one that goes on from the last where a whole one would take longer than the budget."""
        training = Training(
            design_matrix(name, _names(name), raw_columns(name, train.x)),
            np.log(train.y) if settings.fit.in_logarithms else train.y,
            _weights(name, train, began_at, settings.weigh_prefixes),
            monotone(name),
        )
        last, rows = self._last.get(name), len(train)
        if last is not None and not last.is_to_go_on(rows, settings):
            last = None
        started_at = time.perf_counter()
        models = fit(training, settings.fit, last.models if last else ())
        took_s = time.perf_counter() - started_at
        self._last[name] = _Last(models, settings.fit, last.whole_s_per_row if last else took_s / rows)
        return models, last is not None


def _names(target: str) -> tuple[str, ...]:
    return tuple(feature.name for feature in SCHEMAS[target])


def _explain(models: Sequence[Model], spec: GraphSpec, rows: Rows, settings: JobSettings) -> bool:
    """Whether models that were fitted to all rows alike leave no change among them.

    Then it was the situation that changed, into one that the served model had seen little of, and not the law.
    """
    answers = expected(models, design_matrix(spec.derive, spec.inputs, raw_columns(spec.derive, rows.x)), spec)
    left = find_drift(rows, _middle(answers, settings.fit))
    return left is None or not left.is_change(settings.drift_tolerance)


def _middle(answers: Matrix, settings: FitSettings) -> Matrix:
    """Of [rows, outputs] the quantile that is the nearest to the median: between it and an upper one lies a spread.

    That is another in each situation, under the same law. Graphs that were fitted under other settings have other
    outputs; whichever it is then, a spread between old and new rows is no more likely.
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
    """The first output is the one that is asked for by the target's name alone; others add their percentile."""
    return f"{target}_ms" if position == 0 else f"{target}_p{100 * (quantile or 0):g}_ms".replace(".", "_")


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


def _since(data: TargetData, began_at: int) -> TargetData:
    """The rows to judge by: of a law that is gone nobody asks how well it is predicted."""
    return TargetData(data.train, data.holdout.part(data.holdout.arrival >= began_at))


def _judge(
    models: Sequence[Model],
    spec: GraphSpec,
    graph: Graph,
    served: Graph | None,
    data: TargetData,
    settings: JobSettings,
) -> tuple[Verdict, dict[str, float]]:
    """The gate's verdict, and the scores on the rows held out."""
    holdout, quantile = data.holdout, spec.outputs[0].quantile
    rows = raw_columns(spec.derive, np.concatenate([holdout.x, data.train.x[-_PARITY_ROWS:]]))
    answers = graph.outputs(spec.inputs, rows)
    wanted = expected(models, design_matrix(spec.derive, spec.inputs, rows), spec)
    predicted = answers[: len(holdout)]
    found = scores(predicted[:, 0], holdout.y, quantile)
    for output, column in zip(spec.outputs[1:], predicted.T[1:], strict=True):
        more = scores(column, holdout.y, output.quantile)
        found |= {f"{score}_{output.name}": value for score, value in more.items()}
    verdict = check_parity(difference(answers, wanted))
    if verdict.passed:
        verdict = check_rising(graph.predict, spec.inputs, rows[:_PARITY_ROWS], RISING.get(spec.derive, ()))
    if verdict.passed and served is not None:
        before = served.predict(ROW_NAMES, holdout.x)
        candidate, present = (losses(answer, holdout.y, quantile) for answer in (predicted[:, 0], before))
        verdict = check_not_worse(candidate, present, settings.tolerance)
    return verdict, found


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers job after job, each a length and MessagePack, until the source ends."""
    fitter = Fitter()
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        job = decode_job(source.read(LENGTH.unpack(head)[0]))
        try:
            answer = Answer(fitter.learn(job))
        except (FitError, ExportError) as error:
            answer = Answer(error=str(error))
        except Exception as error:  # whatever a library raises costs this pass, and not the process
            logger.exception("a fit failed")
            answer = Answer(error=f"{type(error).__name__}: {error}")
        message = msgspec.msgpack.encode(answer)
        sink.write(LENGTH.pack(len(message)) + message)
        sink.flush()


def main() -> None:
    logging.basicConfig(level=sys.argv[1], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Libraries print to standard output now and then, which here carries the answers.
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        os.nice(_NICENESS)
        # The other process may be gone by the time that a fit is done.
        with suppress(BrokenPipeError):
            serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
