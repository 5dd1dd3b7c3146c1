"""The gate: the tests that a model must pass before it is published."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.wire import Matrix

# A float32 has 24 bits of mantissa, about 6e-8. Summing a few hundred leaves in another order loses about two digits.
RELATIVE_LIMIT = 1e-4
# In the unit of the answers, ms.
ABSOLUTE_LIMIT = 1e-3
# Fewer held-out rows can't tell a worse model from noise.
_MIN_ROWS = 20
# Predictions that differ by more than this factor must be borne out by at least so many rows.
_JUMP_FACTOR = 1.5
_MIN_JUMPS = 5
# The multiple of a simple model's loss that a model may have.
_SOUND_LOSS = 2.0
# A column is multiplied by this to see whether the prediction falls.
_PROBE_FACTOR = np.float32(1.5)
# Share by which the mean prediction may fall.
RISING_TOLERANCE = 0.05

Predict = Callable[[Sequence[str], Matrix], Matrix]


# The tests by their names in metrics.
TESTS: Final = ("parity", "falling", "worse", "jump")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's result; `failed` names the one of TESTS that failed."""

    passed: bool
    failed: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences between two answers to the same rows: absolute in the answers' unit, and relative."""

    absolute: float
    relative: float
    rows: int

    @property
    def is_rounding(self) -> bool:
        return self.relative <= RELATIVE_LIMIT or self.absolute <= ABSOLUTE_LIMIT


def difference(graph: Matrix, booster: Matrix) -> Difference:
    """Return the difference between a graph's and its booster's answers; infinite if any answer is not finite."""
    if not len(booster):
        return Difference(0.0, 0.0, 0)
    if not np.isfinite(graph).all():
        return Difference(float("inf"), float("inf"), len(booster))
    apart = np.abs(graph.astype(np.float64) - booster.astype(np.float64))
    scale = np.maximum(np.abs(booster.astype(np.float64)), 1.0)
    return Difference(float(apart.max()), float((apart / scale).max()), len(booster))


def check_parity(found: Difference) -> Verdict:
    """Require that the graph's answers equal the booster's up to float32 rounding."""
    if found.is_rounding:
        return Verdict(True)
    return Verdict(
        False,
        "parity",
        f"the graph differs from the booster by {found.absolute:.6g} ({found.relative:.3g} relative), "
        f"which is not float32 rounding (at most {RELATIVE_LIMIT:g})",
    )


def losses(predicted: Matrix, actual: Matrix, quantile: float | None) -> Matrix:
    """Return the loss of each row: the pinball loss of a quantile, or the squared error of a mean."""
    error = actual - predicted
    if quantile is None:
        return np.asarray(np.square(error), dtype=np.float32)
    return np.asarray(np.maximum(quantile * error, (quantile - 1) * error), dtype=np.float32)


def check_not_worse(candidate: Matrix, served: Matrix, tolerance: float) -> Verdict:
    """Require that the candidate's mean loss exceeds the served model's by at most a share `tolerance` plus noise.

    Both losses are of the same held-out rows. Noise is two standard errors of the paired difference.
    """
    if len(candidate) < _MIN_ROWS:
        return Verdict(True)
    worse = candidate - served
    noise = 2 * float(worse.std()) / np.sqrt(len(worse))
    allowed = tolerance * float(served.mean()) + noise
    if float(worse.mean()) <= allowed:
        return Verdict(True)
    means = f"{candidate.mean():.4g}, the served model's is {served.mean():.4g}"
    return Verdict(False, "worse", f"its mean loss on {len(worse)} held-out rows is {means}")


def check_sound(candidate: Matrix, simple: Matrix) -> Verdict:
    """Require that the candidate's mean loss is at most a multiple of that of the median times a constant, plus noise.

    Boosting may fail without an error: many equal wrong rows can leave no gain in any split of an upper quantile.
    """
    verdict = check_not_worse(candidate, simple, _SOUND_LOSS - 1)
    if verdict.passed:
        return verdict
    means = f"{candidate.mean():.4g}; the median times a constant has {simple.mean():.4g}"
    return Verdict(False, "worse", f"its mean loss on {len(candidate)} held-out rows is {means}")


def check_jump(candidate: Matrix, served: Matrix, actual: Matrix, quantile: float | None, tolerance: float) -> Verdict:
    """Require that rows bear out the candidate where its predictions differ from the served model's by a large factor.

    A change of the law, or a new kind of load, makes the served model's loss larger on these rows, not the candidate's.
    """
    jumps = np.abs(np.log(np.maximum(candidate, 1e-3) / np.maximum(served, 1e-3))) > np.log(_JUMP_FACTOR)
    if int(jumps.sum()) < _MIN_JUMPS:
        return Verdict(True)
    new, old = (losses(answers[jumps], actual[jumps], quantile) for answers in (candidate, served))
    if float(new.mean()) <= (1 + tolerance) * float(old.mean()):
        return Verdict(True)
    found = f"{float(new.mean()):.4g} instead of {float(old.mean()):.4g}"
    return Verdict(
        False, "jump", f"where its predictions differ by more than {_JUMP_FACTOR:g} times, its mean loss is {found}"
    )


def check_rising(predict: Predict, names: Sequence[str], rows: Matrix, rising: Sequence[str]) -> Verdict:
    """Require that raising a `rising` column does not lower the mean prediction over the rows by more than a tolerance.

    Single rows may fall: boosting of a quantile refits the leaves after the splits, so the monotone constraint of the
    splits holds only roughly.
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
    """Return a model's scores on the holdout: loss, relative errors, and for a quantile the share of rows below it."""
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
