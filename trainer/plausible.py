"""Decide which rows a fit believes: how many latencies may lie how far from the median that was fitted to all of them.

A quantile's model follows any minority that lies beyond that quantile. A model of the median does not: up to half of
the rows may be wrong at a place, and the median stays among the others. So the rows are compared with a fitted median.
A changed law moves the median, and its rows then lie close to it. A minority of wrong rows lies far from it, and is
believed only as far as clean rows would have as many that far off.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.wire import Matrix

# The share of rows, on either side, that may lie further from the median than a factor. The samples of the simulated
# engines (`bench_trainer.py`) have fewer at every factor. No row is believed beyond the last one.
_FACTORS = (1.0, 1.25, 1.38, 1.5, 2.0, 3.0, 5.0, 10.0)
_SHARES = (1.0, 0.25, 0.09, 0.07, 0.025, 0.01, 0.004, 0.001)
# The spread of residuals up to which the factors hold, in natural logarithms. With a wider one, they grow.
_USUAL_SPREAD = 0.2
# The median of absolute deviations, times this, is the standard deviation of a normal distribution.
_NORMAL = 1.4826
# The width of a step of distance, in natural logarithms. Rows of one step are believed alike.
_STEP = 0.05
# Rows as far off as so many times the allowed number are not believed at all, since most of them must be wrong.
_MOSTLY_WRONG = 1.5
# A row whose weight is at least this is believed.
_BELIEVED = 0.5


def belief(residuals: Matrix, allowance: float = 1.0) -> Matrix:
    """Return weights [rows] from 0 to 1 for the logarithms of observed over median latency.

    All are 1 unless too many rows lie too far from the median: more than `allowance` times the usual shares.
    """
    if not len(residuals):
        return np.ones(0, dtype=np.float32)
    centred = residuals.astype(np.float64) - np.median(residuals)
    spread = _NORMAL * float(np.median(np.abs(centred)))
    scaled = centred / max(1.0, spread / _USUAL_SPREAD)
    weights = np.minimum(_one_side(scaled, allowance), _one_side(-scaled, allowance))
    return weights.astype(np.float32)


def is_believed(weights: Matrix) -> NDArray[np.bool_]:
    return weights >= _BELIEVED


def _one_side(distances: NDArray[np.float64], allowance: float) -> NDArray[np.float64]:
    """Return the weights by the distances above the median."""
    steps = np.clip(np.floor(distances / _STEP), 0, np.ceil(np.log(_FACTORS[-1]) / _STEP)).astype(np.int64)
    counts = np.bincount(steps)
    allowed = allowance * _usual_share(_STEP * np.arange(len(counts), dtype=np.float64)) * len(distances)
    further = np.cumsum(counts[::-1])[::-1]
    by_step = np.clip((_MOSTLY_WRONG - further / np.maximum(allowed, 1e-9)) / (_MOSTLY_WRONG - 1), 0, 1)
    by_step[0] = 1.0
    return by_step[steps]


def _usual_share(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of clean rows that lie at least so far above the median."""
    shares = np.exp(np.interp(distances, np.log(_FACTORS), np.log(_SHARES)))
    return np.where(distances > np.log(_FACTORS[-1]), 0.0, shares)
