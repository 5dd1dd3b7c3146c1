"""Decide which rows a fit believes: how many latencies may lie how far from the median that was fitted to all of them.

A quantile's model follows any minority that lies beyond that quantile. A model of the median does not: up to half of
the rows may be wrong at a place, and the median stays among the others. So the rows are compared with a fitted median.
A changed law moves the median, and its rows then lie close to it. A minority of wrong rows lies far from it, and is
believed only as far as clean rows would have as many that far off.

Distances are measured in the usual distance of rows with such a median, because short latencies vary more than long
ones. Above the median it is that of the rows below, if these lie closer, because wrong rows above the median would
widen the distance that they are measured by. Rows are judged cohort by cohort in order of arrival, so older rows don't
hide that many new ones are wrong.

Some clean loads have as many rows far above the median as an attack. Nothing tells the two apart, so such rows are
believed, but count with a shorter latency. An attack then hardly raises an upper quantile, and the upper quantile of
such a load is a little too low.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
# From where more rows lie further above the median than so many times the allowed number, their latencies are
# shortened. With 0.8, wrong rows of 1.4 times the latency moved the first model's predictions by 1.34 times.
_SHORTENED = 0.7
# Two quantiles of the rows below the median, and their distance in a normal distribution of deviation 1.
_BELOW = (0.1, 0.35)
_BELOW_NORMAL = 0.896


@dataclass(frozen=True, slots=True)
class Limits:
    """How far off rows may lie: a multiple of the usual shares, and whether latencies far above are shortened."""

    allowance: float = 1.0
    shortens: bool = True


def limits_of(target: str, allowance: float = 1.0) -> Limits:
    """Return a target's limits. Only TTFT is shortened.

    TPOT has many clean rows far above the median: it depends on what else arrives meanwhile. With TPOT shortened as
    well, policies of the simulated pools lost a third of their advantage.
    """
    return Limits(allowance, shortens=target == "ttft")


@dataclass(frozen=True, slots=True)
class Judgement:
    """How rows count: `weights` [rows] from 0 to 1, and `residuals` [rows], of which some are shortened."""

    weights: Matrix
    residuals: Matrix


def judge(residuals: Matrix, log_medians: Matrix, limits: Limits, judges: NDArray[np.bool_] | None = None) -> Judgement:
    """Judge rows by the logarithms of observed over median latency, in order of arrival.

    All weights are 1 unless too many rows of a cohort lie too far from the median: more than the allowance times the
    usual shares. If nearly too many lie far above it, the residuals beyond are set to one limit. Only the rows `judges`
    show what is usual; default: all.
    """
    weights, counted = np.ones(len(residuals), dtype=np.float32), residuals.copy()
    for cohort in _cohorts(residuals, log_medians, judges):
        weights[cohort.rows] = _weights(cohort, limits.allowance)
        if limits.shortens:
            counted[cohort.rows] -= _excess(cohort, limits.allowance)
    return Judgement(weights, counted)


def as_counted(latency_ms: Matrix, medians_ms: Matrix, limits: Limits) -> tuple[NDArray[np.bool_], Matrix]:
    """Return which rows are believed, and all latencies as a fit would count them. Rows are in order of arrival."""
    log_medians = np.log(np.maximum(medians_ms, 1e-3))
    residuals = np.log(latency_ms) - log_medians
    found = judge(residuals, log_medians, limits)
    return is_believed(found.weights), latency_ms * np.exp(found.residuals - residuals)


def is_believed(weights: Matrix) -> NDArray[np.bool_]:
    return weights >= _BELIEVED


@dataclass(frozen=True, slots=True)
class _Cohort:
    """Rows that are judged together, [rows].

    `centred`: residuals from the cohort's own median. `distances`: `centred` in usual distances, 0 for rows that are
    always believed. `usual_above`: usual distances of rows above the median.
    """

    rows: NDArray[np.int64]
    centred: NDArray[np.float64]
    distances: NDArray[np.float64]
    usual_above: NDArray[np.float64]


def _cohorts(residuals: Matrix, log_medians: Matrix, judges: NDArray[np.bool_] | None) -> Iterator[_Cohort]:
    if not len(residuals):
        return
    precise = residuals.astype(np.float64)
    judges = np.ones(len(residuals), dtype=np.bool_) if judges is None else judges
    usual, above = _usual_distances(precise, log_medians, judges)
    for rows in np.array_split(np.arange(len(residuals)), max(1, len(residuals) // _COHORT_ROWS)):
        centred = precise[rows] - _median(precise[rows], judges[rows])
        distances = centred / np.where(centred > 0, above[rows], usual[rows])
        distances[np.abs(centred) <= np.log(_ALWAYS_BELIEVED)] = 0
        yield _Cohort(rows, centred, distances, above[rows])


def _usual_distances(
    residuals: NDArray[np.float64], log_medians: Matrix, judges: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each row, the usual distance of judges with similar medians, and that of judges above the median.

    The first is the standard deviation as the nearer half shows it. The second is the deviation as rows below the
    median show it, if that is smaller: wrong rows above the median widen the first one.
    """
    centred = residuals - _median(residuals, judges)
    # Rows with equal medians are mixed, so that no part has only the newest of these.
    order = np.random.default_rng(0).permutation(np.flatnonzero(judges))
    order = order[np.argsort(log_medians[order], kind="stable")]
    parts = np.array_split(order, max(1, len(order) // _SIMILAR_ROWS))
    places = [np.mean(log_medians[part]) for part in parts]
    usual, below = (
        np.maximum(np.interp(log_medians, places, [spread(centred[part]) for part in parts]), _LEAST_DISTANCE)
        for spread in (_spread, _spread_below)
    )
    return usual, np.minimum(usual, below)


def _spread(values: NDArray[np.float64]) -> float:
    return _NORMAL * float(np.median(np.abs(values)))


def _spread_below(values: NDArray[np.float64]) -> float:
    low, high = np.sort(values)[[int(quantile * len(values)) for quantile in _BELOW]]
    return float(high - low) / _BELOW_NORMAL


def _median(values: NDArray[np.float64], judges: NDArray[np.bool_]) -> float:
    return float(np.median(values[judges] if judges.any() else values))


def _weights(cohort: _Cohort, allowance: float) -> NDArray[np.float64]:
    found = np.minimum(_one_side(cohort.distances, allowance), _one_side(-cohort.distances, allowance))
    is_too_far = (np.abs(cohort.centred) > np.log(_NEVER_BELIEVED)) & (np.abs(cohort.distances) > _DISTANCES[-1])
    return np.where(is_too_far, 0, found)


def _excess(cohort: _Cohort, allowance: float) -> NDArray[np.float64]:
    """Return by how much each residual is shortened. Rows that are always believed are not."""
    _, shares = _shares_of_allowed(cohort.distances, allowance)
    crowded = 1 + np.flatnonzero(shares[1:] > _SHORTENED)
    if not len(crowded):
        return np.zeros(len(cohort.rows))
    limits = np.maximum(np.log(_ALWAYS_BELIEVED), _STEP * crowded[0] * cohort.usual_above)
    excess: NDArray[np.float64] = np.maximum(cohort.centred - limits, 0)
    return excess


def _one_side(distances: NDArray[np.float64], allowance: float) -> NDArray[np.float64]:
    """Return the weights by the distances above the median. Further rows are not believed more than nearer ones."""
    steps, shares = _shares_of_allowed(distances, allowance)
    by_step = np.clip((_MOSTLY_WRONG - shares) / (_MOSTLY_WRONG - 1), 0, 1)
    by_step[0] = 1.0
    return np.minimum.accumulate(by_step)[steps]


def _shares_of_allowed(
    distances: NDArray[np.float64], allowance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each row's step above the median, and for each step how many times the allowed number lie further off."""
    steps = np.clip(np.floor(distances / _STEP), 0, np.ceil(_DISTANCES[-1] / _STEP)).astype(np.int64)
    counts = np.bincount(steps)
    usual = _usual_share(_STEP * np.arange(len(counts), dtype=np.float64)) * len(distances)
    # The number of clean rows varies by chance, by its square root.
    allowed = allowance * (usual + np.sqrt(usual))
    further = np.cumsum(counts[::-1])[::-1]
    return steps, further / np.maximum(allowed, 1e-9)


def _usual_share(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of clean rows that lie at least so far above the median."""
    return np.exp(np.interp(distances, _DISTANCES, np.log(_SHARES)))
