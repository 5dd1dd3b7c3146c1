"""Fits that a minority of wrong rows can't move: fit, doubt rows that lie too far from the median, and fit again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.learners import Model, Training, fit
from trainer.places import representative
from trainer.plausible import belief, is_believed
from trainer.settings import FitSettings, JobSettings
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

    `belief`: each training row's weight by its plausibility. `residuals`: the logarithms of the believed training rows'
    latencies over the median.
    """

    models: list[Model]
    median: Model
    belief: Matrix
    residuals: Matrix
    incremental: bool


def robust_fit(
    training: Training, rows: Rows, judged: NDArray[np.bool_], settings: JobSettings, previous: Sequence[Model]
) -> RobustFit:
    """Fit models to the rows that can be believed. Rows that are not `judged` keep their weights.

    Clean rows are fitted once. If rows are doubted, the models are fitted again with lower weights for these.
    """
    logarithms = np.log(rows.y)
    models = fit(training, settings.fit, previous)
    median = _median(models, training, logarithms, settings.fit)
    found = np.ones(len(rows), dtype=np.float32)
    in_order = np.flatnonzero(judged)[np.argsort(rows.arrival[judged])]
    residuals = logarithms - median.predict(training.x)
    judges = representative(rows.x[in_order])
    if not judges.all() or (_belief(residuals, logarithms, in_order, judges, settings) < 1).any():
        judging = np.ones(len(rows), dtype=np.float32)
        judging[in_order] = judges
        for _ in range(_ROUNDS):
            apart = _residuals(_weighted(training, found * judging), logarithms, settings.fit)
            found[in_order] = _belief(apart, logarithms, in_order, judges, settings)
            if is_believed(found).all():
                break
    if (found == 1).all():
        return RobustFit(models, median, found, residuals, bool(previous))
    believed = _weighted(training, found)
    models = fit(believed, settings.fit, previous)
    median = _median(models, believed, logarithms, settings.fit)
    residuals = (logarithms - median.predict(training.x))[is_believed(found)]
    return RobustFit(models, median, found, residuals, bool(previous))


def _belief(
    residuals: Matrix,
    logarithms: Matrix,
    in_order: NDArray[np.int64],
    judges: NDArray[np.bool_],
    settings: JobSettings,
) -> Matrix:
    medians = logarithms - residuals
    return belief(residuals[in_order], medians[in_order], settings.allowed_outliers, judges)


def _weighted(training: Training, factors: Matrix) -> Training:
    return replace(training, weights=factors if training.weights is None else training.weights * factors)


def _residuals(training: Training, logarithms: Matrix, settings: FitSettings) -> Matrix:
    """Return each row's distance from a median that was fitted to other rows.

    A median fitted to the row itself follows wrong rows where a few of them happen to lie together.
    """
    part = np.arange(len(logarithms)) % _PARTS
    found = np.empty(len(logarithms), dtype=np.float32)
    for number in range(_PARTS):
        own = part == number
        weights = None if training.weights is None else training.weights[~own]
        others = replace(training, x=training.x[~own], weights=weights)
        found[own] = logarithms[own] - _fit_median(others, logarithms[~own], settings).predict(training.x[own])
    return found


def _median(models: Sequence[Model], training: Training, logarithms: Matrix, settings: FitSettings) -> Model:
    """Return the model of the median among `models`, or else fit one."""
    if settings.in_logarithms and 0.5 in settings.quantiles:
        return models[settings.quantiles.index(0.5)]
    return _fit_median(training, logarithms, settings)


def _fit_median(training: Training, logarithms: Matrix, settings: FitSettings) -> Model:
    apart = (_TIE_BREAK * (np.arange(len(logarithms)) // _PARTS % 2)).astype(np.float32)
    return fit(replace(training, y=logarithms + apart), msgspec.structs.replace(_JUDGE, threads=settings.threads))[0]
