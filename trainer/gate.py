"""What a model has to pass before it is published."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.wire import Matrix

# A float32 has 24 bits of mantissa, about 6e-8; adding a few hundred leaves in another order loses some two digits.
RELATIVE_LIMIT = 1e-4
ABSOLUTE_LIMIT = 1e-3
_FEWEST_ROWS = 20
# How much is added to a column to see whether the prediction falls, and by what share it may.
_PROBE_FACTOR = np.float32(1.5)
RISING_TOLERANCE = 0.05

Predict = Callable[[Sequence[str], Matrix], Matrix]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model passed; if not, which test it failed (parity, falling or worse), and how."""

    passed: bool
    failed: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences between two answers to the same rows, in the unit of the answers and as a share."""

    absolute: float
    relative: float
    rows: int

    @property
    def is_rounding(self) -> bool:
        return self.relative <= RELATIVE_LIMIT or self.absolute <= ABSOLUTE_LIMIT


def difference(graph: Matrix, booster: Matrix) -> Difference:
    """How far a graph is from its booster; infinitely far where it answers no number."""
    if not len(booster):
        return Difference(0.0, 0.0, 0)
    if not np.isfinite(graph).all():
        return Difference(float("inf"), float("inf"), len(booster))
    apart = np.abs(graph.astype(np.float64) - booster.astype(np.float64))
    scale = np.maximum(np.abs(booster.astype(np.float64)), 1.0)
    return Difference(float(apart.max()), float((apart / scale).max()), len(booster))


def check_parity(found: Difference) -> Verdict:
    """The graph must say what the booster says, to float32 rounding."""
    if found.is_rounding:
        return Verdict(True)
    return Verdict(
        False,
        "parity",
        f"the graph differs from the booster by {found.absolute:.6g} ({found.relative:.3g} relative), "
        f"which is not float32 rounding (at most {RELATIVE_LIMIT:g})",
    )


def losses(predicted: Matrix, actual: Matrix, quantile: float | None) -> Matrix:
    """What each row costs: the pinball loss of a quantile, or the squared error of a mean."""
    error = actual - predicted
    if quantile is None:
        return np.asarray(np.square(error), dtype=np.float32)
    return np.asarray(np.maximum(quantile * error, (quantile - 1) * error), dtype=np.float32)


def check_not_worse(candidate: Matrix, served: Matrix, tolerance: float) -> Verdict:
    """On the same holdout, the candidate's mean loss may exceed the served model's by `tolerance` of it, and by noise.

    Noise is two standard errors of the paired difference; with few rows there is nothing to tell apart.
    """
    if len(candidate) < _FEWEST_ROWS:
        return Verdict(True)
    worse = candidate - served
    noise = 2 * float(worse.std()) / np.sqrt(len(worse))
    allowed = tolerance * float(served.mean()) + noise
    if float(worse.mean()) <= allowed:
        return Verdict(True)
    means = f"{candidate.mean():.4g}, that of the served model {served.mean():.4g}"
    return Verdict(False, "worse", f"its mean loss on the {len(worse)} rows held out is {means}")


def check_rising(predict: Predict, names: Sequence[str], rows: Matrix, rising: Sequence[str]) -> Verdict:
    """More of a `rising` column must not predict less, on the average of observed rows, by more than a tolerance.

    Single rows may: boosting towards a quantile sets its leaves anew after the splits, and so keeps to the constraint
    that the splits were made under only roughly.
    """
    before = predict(names, rows)
    for column in rising:
        if column not in names or not len(rows):
            continue
        probe = rows.copy()
        index = names.index(column)
        probe[:, index] = probe[:, index] * _PROBE_FACTOR + 1
        fall = float(((before - predict(names, probe)) / np.maximum(before, 1.0)).mean())
        if fall > RISING_TOLERANCE:
            return Verdict(False, "falling", f"more {column} predicts {fall:.1%} less latency")
    return Verdict(True)


def scores(predicted: Matrix, actual: Matrix, quantile: float | None) -> dict[str, float]:
    """How good a model is on its holdout: relative errors, and for a quantile the share of rows below it."""
    if not len(actual):
        return {}
    relative = np.abs(predicted - actual) / np.maximum(actual, 1e-3)
    found = {
        "loss": losses(predicted, actual, quantile).mean(),
        "mape": relative.mean(),
        "mdape": np.median(relative),
    }
    if quantile is not None:
        found["coverage"] = (actual <= predicted).mean()
    return {name: round(float(value), 6) for name, value in found.items()}
