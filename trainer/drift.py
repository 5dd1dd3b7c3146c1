"""Noticing that latencies obey another law than the one that was learnt: another model version, a slower GPU.

The rows that came last are walked through in their order. Where their residuals against the served model jump from one
level to another, and stay there, the law has changed; the older rows then describe a world that is gone.
"""

from dataclasses import dataclass

import numpy as np

from trainer.window import Rows, TargetData
from trainer.wire import Matrix

# How far back a change is looked for, and how many rows have to be on either side of it.
_LOOKED_AT = 2_000
_FEWEST_BEFORE, _FEWEST_AFTER = 100, 20
# Residuals of neighbours are alike, in a queue that builds up, so that few standard errors prove little.
_SCORE_LIMIT = 8.0
_OLD_SHARE = 0.1
_LARGEST_RESIDUAL = 3.0


@dataclass(frozen=True, slots=True)
class Drift:
    """The likeliest change: from which row on, by which factor, and by how many standard errors it stands out."""

    began_at: int
    factor: float
    score: float

    def is_change(self, tolerance: float) -> bool:
        return self.score >= _SCORE_LIMIT and abs(np.log(self.factor)) >= np.log1p(tolerance)


def newest(data: TargetData, since: int) -> Rows:
    """The rows that came last, in their order, of both sides, and none from before `since`."""
    rows = data.in_order().part(slice(-_LOOKED_AT, None))
    return rows.part(rows.arrival >= since)


def find_drift(rows: Rows, predicted: Matrix) -> Drift | None:
    """The likeliest change among rows in the order of their arrival; None when there are too few rows to say."""
    count = len(rows)
    if count < _FEWEST_BEFORE + _FEWEST_AFTER:
        return None
    residuals = np.log(rows.y / np.maximum(predicted, 1e-3))
    residuals = np.clip(residuals - np.median(residuals), -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL).astype(np.float64)
    sums, squares = np.cumsum(residuals), np.cumsum(residuals**2)
    before = np.arange(_FEWEST_BEFORE, count - _FEWEST_AFTER + 1)
    after = count - before
    sum_before, square_before = sums[before - 1], squares[before - 1]
    sum_after, square_after = sums[-1] - sum_before, squares[-1] - square_before
    shift = sum_after / after - sum_before / before
    within = square_before - sum_before**2 / before + square_after - sum_after**2 / after
    error = np.sqrt(np.maximum(within / (count - 2), 1e-12) * (1 / before + 1 / after))
    best = int(np.argmax(np.abs(shift) / error))
    score = float(abs(shift[best]) / error[best])
    return Drift(int(rows.arrival[before[best]]), float(np.exp(shift[best])), score)


def weights(rows: Rows, began_at: int) -> Matrix:
    """Full weight for the rows of the present law; all older ones together count for a tenth of those."""
    old = rows.arrival < began_at
    new_count = len(rows) - int(old.sum())
    result = np.ones(len(rows), dtype=np.float32)
    result[old] = _OLD_SHARE * min(1.0, new_count / max(1, len(rows) - new_count))
    return result
