"""Drift detection: find the row from which latencies follow another law than the served model has learnt.

A law is the relation between features and latency. A new model version or a slower GPU changes it. The newest rows are
examined in order of arrival. If their residuals against the served model jump to another level and stay there, the law
may have changed. Then older rows no longer describe the system.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trainer.window import Rows, TargetData
from trainer.wire import Matrix

# Number of newest rows to search for a change.
_SEARCHED_ROWS = 2_000
# Rows that must lie on either side of a change.
_MIN_ROWS_BEFORE, _MIN_ROWS_AFTER = 100, 20
# In standard errors. Residuals of neighbouring rows are correlated while a queue builds up, so a few prove little.
_SCORE_LIMIT = 8.0
# Weight of all older rows together, as a share of the newer rows' weight.
_OLD_ROWS_SHARE = 0.1
# Residuals are clipped to this distance from their median, in natural logarithms: a factor of 20.
_MAX_RESIDUAL = 3.0
# Rows before and after a row that are its neighbours, and the distance from their median, as a multiple of the median
# distance, beyond which a row is an outlier.
_NEIGHBOURS = 50
_OUTLIER = 4.0


@dataclass(frozen=True, slots=True)
class Drift:
    """The most likely change: its first arrival number, its factor on latency, and its size in standard errors."""

    began_at: int
    factor: float
    score: float

    def is_change(self, tolerance: float) -> bool:
        return self.score >= _SCORE_LIMIT and abs(np.log(self.factor)) >= np.log1p(tolerance)


def newest_rows(data: TargetData, since: int) -> Rows:
    """Return the newest rows, trained on and held out, in order of arrival; none from before `since`."""
    rows = data.in_order().part(slice(-_SEARCHED_ROWS, None))
    return rows.part(rows.arrival >= since)


def find_drift(rows: Rows, predicted: Matrix) -> Drift | None:
    """Find the most likely change among rows in order of arrival; return None when there are too few rows."""
    count = len(rows)
    if count < _MIN_ROWS_BEFORE + _MIN_ROWS_AFTER:
        return None
    residuals = np.log(rows.y / np.maximum(predicted, 1e-3))
    residuals = np.clip(residuals - np.median(residuals), -_MAX_RESIDUAL, _MAX_RESIDUAL).astype(np.float64)
    drift = _largest_jump(rows, residuals)
    if drift.score < _SCORE_LIMIT:
        return drift
    of_most = _largest_jump(rows, _without_outliers(residuals))
    return drift if abs(np.log(of_most.factor)) > abs(np.log(drift.factor)) / 2 else of_most


def _without_outliers(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace residuals that differ from most of their neighbours by the neighbours' median.

    A change of the law moves all rows, and stays. A minority of wrong rows disappears, and so does its effect on means.
    """
    padded = np.pad(residuals, _NEIGHBOURS, mode="reflect")
    medians = np.median(sliding_window_view(padded, 2 * _NEIGHBOURS + 1), axis=1)
    distances = np.abs(residuals - medians)
    return np.where(distances > _OUTLIER * np.median(distances), medians, residuals)


def _largest_jump(rows: Rows, residuals: NDArray[np.float64]) -> Drift:
    count = len(rows)
    sums, squares = np.cumsum(residuals), np.cumsum(residuals**2)
    before = np.arange(_MIN_ROWS_BEFORE, count - _MIN_ROWS_AFTER + 1)
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
    """Return [rows] weights: 1 for rows of the present law. All older rows together weigh at most a tenth of these."""
    old = rows.arrival < began_at
    new_count = len(rows) - int(old.sum())
    result = np.ones(len(rows), dtype=np.float32)
    result[old] = _OLD_ROWS_SHARE * min(1.0, new_count / max(1, len(rows) - new_count))
    return result
