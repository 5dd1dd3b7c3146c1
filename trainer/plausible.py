"""Decide which rows a fit believes: how many latencies may lie how far from the median that was fitted to all of them.

A quantile's model follows any minority that lies beyond that quantile. A model of the median does not: up to half of
the rows may be wrong at a place, and the median stays among the others. So the rows are compared with a fitted median.
A changed law moves the median, and its rows then lie close to it. A minority of wrong rows lies far from it, and is
believed only as far as clean rows would have as many that far off.

Distances are measured in the usual distance of rows with such a median, because short latencies vary more than long
ones. Rows are judged cohort by cohort in order of arrival, so older rows don't hide that many new ones are wrong.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.wire import Matrix

# The share of a cohort's rows, on either side, that may lie further from the median than so many usual distances: the
# most that samples of the simulated engines have (`lab.bench.trainer.simulated`), which is TTFT at low load.
_DISTANCES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0)
_SHARES = (1.0, 0.3, 0.17, 0.125, 0.095, 0.075, 0.05, 0.036, 0.028, 0.018, 0.01, 0.002)
# Rows within this factor of the median are always believed: a system's latency may change so much at any time.
_ALWAYS_BELIEVED = 1.25
# Rows beyond this factor and the last distance are never believed.
_NEVER_BELIEVED = 10.0
# Rows of a cohort. With fewer, the numbers that are allowed far off are mostly noise.
_COHORT_ROWS = 1_000
# Rows with similar medians from which a usual distance is taken.
_SIMILAR_ROWS = 200
# The smallest usual distance, in natural logarithms. Below it, latencies are as good as equal.
_LEAST_DISTANCE = 0.05
# The median of absolute deviations, times this, is the standard deviation of a normal distribution.
_NORMAL = 1.4826
# The width of a step, in usual distances. Rows of one step are believed alike.
_STEP = 0.25
# Rows as far off as so many times the allowed number are not believed at all, since most of them must be wrong.
_MOSTLY_WRONG = 1.5
# A row whose weight is at least this is believed.
_BELIEVED = 0.5


def belief(
    residuals: Matrix, log_medians: Matrix, allowance: float = 1.0, judges: NDArray[np.bool_] | None = None
) -> Matrix:
    """Return weights [rows] from 0 to 1 for the logarithms of observed over median latency, in order of arrival.

    All are 1 unless too many rows of a cohort lie too far from the median: more than `allowance` times the usual
    shares. Only the rows `judges` show what is usual; default: all.
    """
    weights = np.ones(len(residuals), dtype=np.float32)
    if not len(residuals):
        return weights
    precise = residuals.astype(np.float64)
    judges = np.ones(len(residuals), dtype=np.bool_) if judges is None else judges
    usual = _usual_distances(precise, log_medians, judges)
    for cohort in np.array_split(np.arange(len(residuals)), max(1, len(residuals) // _COHORT_ROWS)):
        centred = precise[cohort] - _median(precise[cohort], judges[cohort])
        distances = np.where(np.abs(centred) > np.log(_ALWAYS_BELIEVED), centred / usual[cohort], 0)
        found = np.minimum(_one_side(distances, allowance), _one_side(-distances, allowance))
        is_too_far = (np.abs(centred) > np.log(_NEVER_BELIEVED)) & (np.abs(distances) > _DISTANCES[-1])
        weights[cohort] = np.where(is_too_far, 0, found)
    return weights


def is_believed(weights: Matrix) -> NDArray[np.bool_]:
    return weights >= _BELIEVED


def _usual_distances(
    residuals: NDArray[np.float64], log_medians: Matrix, judges: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return, for each row, the standard deviation of judges with similar medians, as their nearer half shows it."""
    centred = residuals - _median(residuals, judges)
    # Rows with equal medians are mixed, so that no part has only the newest of these.
    order = np.random.default_rng(0).permutation(np.flatnonzero(judges))
    order = order[np.argsort(log_medians[order], kind="stable")]
    parts = np.array_split(order, max(1, len(order) // _SIMILAR_ROWS))
    found = [_NORMAL * np.median(np.abs(centred[part])) for part in parts]
    places = [np.mean(log_medians[part]) for part in parts]
    distances: NDArray[np.float64] = np.maximum(np.interp(log_medians, places, found), _LEAST_DISTANCE)
    return distances


def _median(values: NDArray[np.float64], judges: NDArray[np.bool_]) -> float:
    return float(np.median(values[judges] if judges.any() else values))


def _one_side(distances: NDArray[np.float64], allowance: float) -> NDArray[np.float64]:
    """Return the weights by the distances above the median. Further rows are not believed more than nearer ones."""
    steps = np.clip(np.floor(distances / _STEP), 0, np.ceil(_DISTANCES[-1] / _STEP)).astype(np.int64)
    counts = np.bincount(steps)
    usual = _usual_share(_STEP * np.arange(len(counts), dtype=np.float64)) * len(distances)
    # The number of clean rows varies by chance, by its square root.
    allowed = allowance * (usual + np.sqrt(usual))
    further = np.cumsum(counts[::-1])[::-1]
    by_step = np.clip((_MOSTLY_WRONG - further / np.maximum(allowed, 1e-9)) / (_MOSTLY_WRONG - 1), 0, 1)
    by_step[0] = 1.0
    return np.minimum.accumulate(by_step)[steps]


def _usual_share(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of clean rows that lie at least so far above the median."""
    return np.exp(np.interp(distances, _DISTANCES, np.log(_SHARES)))
