"""Fits that a minority of wrong rows can't move: fit, doubt rows that lie too far from the median, and fit again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.learners import Model, Training, fit
from trainer.places import representative
from trainer.plausible import Limits, is_believed, judge
from trainer.settings import FitSettings
from trainer.window import Rows
from trainer.wire import Matrix

# The second round's medians are fitted without most of the wrong rows.
_ROUNDS = 2
# Half of the rows judge the other half.
_PARTS = 2
# More steps that are smaller. The rows of the simulated engines then lie a tenth closer to the median of others.
_JUDGE = FitSettings(quantiles=(0.5,), trees=100, depth=3, learning_rate=0.1)
# Shifts equal latencies apart, in natural logarithms. XGBoost counts a row that equals its prediction as one below it,
# so among equal rows it finds no gain in any split.
_TIE_BREAK = 1e-3


@dataclass(frozen=True, slots=True)
class RobustFit:
    """Fitted models, and a model of the logarithm's median.

    `doubted`: true for training rows that are not believed, or count with a shorter latency. `residuals`: the
    logarithms of the believed training rows' latencies, as they count, over the median.
    """

    models: list[Model]
    median: Model
    doubted: NDArray[np.bool_]
    residuals: Matrix
    incremental: bool


@dataclass(frozen=True, slots=True)
class _Counted:
    """How rows count in a fit: their weights by plausibility, and their logarithms, of which some are shortened."""

    weights: Matrix
    logarithms: Matrix
    is_shortened: NDArray[np.bool_]

    @property
    def doubted(self) -> NDArray[np.bool_]:
        return ~is_believed(self.weights) | self.is_shortened

    @property
    def are_all_as_observed(self) -> bool:
        return bool((self.weights == 1).all() and not self.is_shortened.any())


@dataclass(frozen=True, slots=True)
class _ToJudge:
    """The rows that are judged: all logarithms, the judged rows' indices in order of arrival, and who may judge."""

    logarithms: Matrix
    in_order: NDArray[np.int64]
    judges: NDArray[np.bool_]
    limits: Limits

    def as_they_are(self) -> _Counted:
        rows = len(self.logarithms)
        return _Counted(np.ones(rows, dtype=np.float32), self.logarithms, np.zeros(rows, dtype=np.bool_))

    def judge(self, medians: Matrix) -> _Counted:
        """Compare each row with its median, a logarithm. Rows that are not judged count as they are."""
        residuals, log_medians = (values[self.in_order] for values in (self.logarithms - medians, medians))
        weights, counted = np.ones(len(medians), dtype=np.float32), self.logarithms.copy()
        found = judge(residuals, log_medians, self.limits, self.judges)
        weights[self.in_order] = found.weights
        counted[self.in_order] -= residuals - found.residuals
        return _Counted(weights, counted, counted < self.logarithms)


def robust_fit(
    training: Training,
    rows: Rows,
    judged: NDArray[np.bool_],
    settings: FitSettings,
    limits: Limits,
    previous: Sequence[Model],
    *,
    expects_doubts: bool = False,
) -> RobustFit:
    """Fit models to the rows that can be believed. Rows that are not `judged` count as they are.

    Clean rows are fitted once. If rows are doubted, the models are fitted again with lower weights and shorter
    latencies for these. With `expects_doubts`, rows are judged before any model is fitted, which saves the first fit.
    """
    logarithms = np.log(rows.y)
    in_order = np.flatnonzero(judged)[np.argsort(rows.arrival[judged])]
    to_judge = _ToJudge(logarithms, in_order, representative(rows.x[in_order]), limits)
    if not expects_doubts:
        fitted = _fitted(training, to_judge.as_they_are(), settings, previous)
        found = to_judge.judge(fitted.medians)
        if to_judge.judges.all() and found.are_all_as_observed:
            return fitted.result(found, previous)
    found = _judge_by_others(training, to_judge, settings)
    if expects_doubts or not found.are_all_as_observed:
        fitted = _fitted(training, found, settings, previous)
    return fitted.result(found, previous)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Models, the model of the median, and its answers for all rows."""

    models: list[Model]
    median: Model
    medians: Matrix

    def result(self, counted: _Counted, previous: Sequence[Model]) -> RobustFit:
        residuals = (counted.logarithms - self.medians)[is_believed(counted.weights)]
        return RobustFit(self.models, self.median, counted.doubted, residuals, bool(previous))


def _fitted(training: Training, counted: _Counted, settings: FitSettings, previous: Sequence[Model]) -> _Fitted:
    believed = training if counted.are_all_as_observed else _as_counted(training, counted, settings)
    models = fit(believed, settings, previous)
    median = _median(models, believed, counted.logarithms, settings)
    return _Fitted(models, median, median.predict(training.x))


def _judge_by_others(training: Training, to_judge: _ToJudge, settings: FitSettings) -> _Counted:
    """Judge rows by medians that were fitted to others, and again by medians without most of the wrong rows."""
    judging = np.ones(len(to_judge.logarithms), dtype=np.float32)
    judging[to_judge.in_order] = to_judge.judges
    weights, logarithms = judging, to_judge.logarithms
    for _ in range(_ROUNDS):
        found = to_judge.judge(_medians_by_others(_weighted(training, weights), logarithms, settings))
        if not found.doubted.any():
            break
        weights, logarithms = found.weights * judging, found.logarithms
    return found


def _as_counted(training: Training, found: _Counted, settings: FitSettings) -> Training:
    y = found.logarithms if settings.in_logarithms else np.exp(found.logarithms)
    return replace(_weighted(training, found.weights), y=np.where(found.is_shortened, y, training.y))


def _weighted(training: Training, factors: Matrix) -> Training:
    return replace(training, weights=factors if training.weights is None else training.weights * factors)


def _medians_by_others(training: Training, logarithms: Matrix, settings: FitSettings) -> Matrix:
    """Return each row's median, a logarithm, by a model that was fitted to other rows.

    A median fitted to the row itself follows wrong rows where a few of them happen to lie together.
    """
    part = np.arange(len(logarithms)) % _PARTS
    found = np.empty(len(logarithms), dtype=np.float32)
    for number in range(_PARTS):
        own = part == number
        weights = None if training.weights is None else training.weights[~own]
        others = replace(training, x=training.x[~own], weights=weights)
        found[own] = _fit_median(others, logarithms[~own], settings).predict(training.x[own])
    return found


def _median(models: Sequence[Model], training: Training, logarithms: Matrix, settings: FitSettings) -> Model:
    """Return the model of the median among `models`, or else fit one."""
    if settings.in_logarithms and 0.5 in settings.quantiles:
        return models[settings.quantiles.index(0.5)]
    return _fit_median(training, logarithms, settings)


def _fit_median(training: Training, logarithms: Matrix, settings: FitSettings) -> Model:
    apart = (_TIE_BREAK * (np.arange(len(logarithms)) // _PARTS % 2)).astype(np.float32)
    return fit(replace(training, y=logarithms + apart), msgspec.structs.replace(_JUDGE, threads=settings.threads))[0]
