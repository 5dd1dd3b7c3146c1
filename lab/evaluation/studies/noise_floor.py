"""The noise floor of predictions: the noise of latencies that remains when all features of a model are known.

The spread of repeats of one state is this noise. Without repeats, the residuals of a row and of its nearest neighbour
in the features take their place. Rice (Annals of Statistics 12, 1984) describes this for one feature.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.wire import Matrix

Floats = NDArray[np.float64]

# Rows whose distances are computed at once, to bound memory.
_AT_ONCE = 256
_MOST_ROWS = 4_000
_FEWEST_PAIRS = 20


class Floor(msgspec.Struct, frozen=True):
    """The errors of a perfect model of the features.

    `sigma` is a robust standard deviation of the logarithm's noise. `pinball` is the loss of the logarithm at the
    quantile. `pairs` is the number of differences that the estimate is from.
    """

    method: str
    mdape: float
    pinball: float
    sigma: float
    pairs: int


class StateAwareErrors(msgspec.Struct, frozen=True):
    """Median errors on the same rows: of models of the features, and of models that also know the engine's state."""

    ours_mdape: float
    told_mdape: float
    judged_rows: int


class TpotBounds(msgspec.Struct, frozen=True):
    """Bounds of TPOT prediction: the floor due to the unknown future, and the errors of state-aware models.

    Each is None if there are too few requests.
    """

    future: Floor | None
    told: StateAwareErrors | None


def floor_of_repeats(groups: Sequence[Matrix], quantile: float = 0.9) -> Floor | None:
    """Estimate the floor from latencies in ms of exact repeats, one group per state; None with fewer than 20 pairs.

    The estimate has no bias if the logarithm's noise is Gaussian and the same everywhere. A repeated state of the
    simulator fixes everything that the past decides. Then only later arrivals are noise, which is less than what
    features leave unknown.
    """
    logarithms = [np.log(np.asarray(group, dtype=np.float64)) for group in groups if len(group) > 1]
    halves = [(one[: len(one) // 2], one[len(one) // 2 : 2 * (len(one) // 2)]) for one in logarithms]
    differences = np.concatenate([first - second for first, second in halves] or [np.empty(0)])
    return _floor("repeats", differences, quantile)


def floor_of_neighbours(
    x: Matrix, residuals: Matrix, weights: Matrix, quantile: float = 0.9, apart: int = 50
) -> Floor | None:
    """Estimate the floor from rows `x` [rows, columns] in order of arrival; None with too few.

    `residuals` are those of the logarithm, by any model of these columns; they remove the differences between
    neighbours that the model explains. `weights` [columns] weigh the columns in the distance. Neighbours are at least
    `apart` rows from each other, because rows that came together share a state that no feature shows.

    The estimate is biased upwards: by differences of the model's own error between neighbours, more so with few rows;
    by a law that drifts; and by tails heavier than a Gaussian's. Only the newest 4,000 rows count.
    """
    x, residuals = x[-_MOST_ROWS:], residuals[-_MOST_ROWS:]
    if len(x) <= 2 * apart:
        return None
    neighbours = _neighbours(_ranks(x) * np.sqrt(weights, dtype=np.float32), apart)
    differences = residuals.astype(np.float64) - residuals[neighbours]
    return _floor(f"neighbours {apart} rows apart", differences, quantile)


def _floor(method: str, differences: Floats, quantile: float) -> Floor | None:
    """Estimate a floor. The noise of one is the difference of two, divided by the root of 2: exact for Gaussians."""
    if len(differences) < _FEWEST_PAIRS:
        return None
    noise = np.concatenate([differences, -differences]) / np.sqrt(2)
    off = noise - np.quantile(noise, quantile)
    return Floor(
        method=method,
        mdape=float(np.median(np.abs(np.expm1(noise)))),
        pinball=float(np.maximum(quantile * off, (quantile - 1) * off).mean()),
        sigma=float(np.median(np.abs(noise)) / 0.6745),
        pairs=len(differences),
    )


def _ranks(x: Matrix) -> Matrix:
    """Return each column's ranks from 0 to 1. Equal values have equal ranks; missing values rank below all others."""
    ranks = np.empty(x.shape, dtype=np.float32)
    for index, column in enumerate(x.T):
        values, places = np.unique(np.nan_to_num(column, nan=-1.0), return_inverse=True)
        ranks[:, index] = places / max(1, len(values) - 1)
    return ranks


def _neighbours(x: Matrix, apart: int) -> NDArray[np.intp]:
    """Return the index of each row's nearest row that is at least `apart` rows away, by brute force."""
    squares = (x**2).sum(axis=1)
    nearest = np.empty(len(x), dtype=np.intp)
    positions = np.arange(len(x))
    for begin in range(0, len(x), _AT_ONCE):
        part = positions[begin : begin + _AT_ONCE]
        distances = squares[None, :] - 2 * x[part] @ x.T
        distances[np.abs(positions[None, :] - part[:, None]) < apart] = np.inf
        nearest[part] = np.argmin(distances, axis=1)
    return nearest
