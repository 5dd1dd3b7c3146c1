"""How well latencies could be predicted at best: the noise that is left when everything a model is told is known.

Of repeats of one state the spread is that noise itself. Without repeats, the residuals of a row and of its nearest
neighbour in the features stand in for them (Rice, Annals of Statistics 12, 1984, for one feature).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.wire import Matrix

Floats = NDArray[np.float64]

_AT_ONCE = 256
_MOST_ROWS = 4_000
_FEWEST_PAIRS = 20


class Floor(msgspec.Struct, frozen=True):
    """What a perfect model of the features would still be off by. `sigma` is the noise of the logarithm, robustly.

    `pinball` is that of the logarithm at the quantile; `pairs` is how many differences of two it was estimated from.
    """

    method: str
    mdape: float
    pinball: float
    sigma: float
    pairs: int


class StateAwareErrors(msgspec.Struct, frozen=True):
    """Median errors on the same rows: of models of the features, and of models that are told an engine's state too."""

    ours_mdape: float
    told_mdape: float
    judged_rows: int


class TpotBounds(msgspec.Struct, frozen=True):
    """What of TPOT only the future decides, and what knowledge of the present would tell; None where too few came."""

    future: Floor | None
    told: StateAwareErrors | None


def floor_of_repeats(groups: Sequence[Matrix], quantile: float = 0.9) -> Floor | None:
    """From latencies in ms of exact repeats, a group a state; None with fewer than 20 pairs.

    Without bias for noise that is Gaussian in the logarithm and alike everywhere. A state of which the simulator's
    engines and clients are copied repeats all that the past decides: only what arrives later is noise then, which is
    less than what the features leave open.
    """
    logarithms = [np.log(np.asarray(group, dtype=np.float64)) for group in groups if len(group) > 1]
    halves = [(one[: len(one) // 2], one[len(one) // 2 : 2 * (len(one) // 2)]) for one in logarithms]
    differences = np.concatenate([first - second for first, second in halves] or [np.empty(0)])
    return _floor("repeats", differences, quantile)


def floor_of_neighbours(
    x: Matrix, residuals: Matrix, weights: Matrix, quantile: float = 0.9, apart: int = 50
) -> Floor | None:
    """From rows x [rows, columns] in the order of their arrival; None with too few.

    `residuals` are of the logarithm, against any model of these columns: what that gets right no longer tells
    neighbours apart. `weights` [columns] say how much a column counts for nearness. Neighbours are at least `apart`
    rows from each other, since those that came together share what no feature tells.

    It is biased upwards: by how much the model's own error differs between neighbours, the more the fewer the rows, by
    a law that drifts, and by tails of the noise that are heavier than a Gaussian's. Only the newest 4,000 rows count.
    """
    x, residuals = x[-_MOST_ROWS:], residuals[-_MOST_ROWS:]
    if len(x) <= 2 * apart:
        return None
    neighbours = _neighbours(_ranks(x) * np.sqrt(weights, dtype=np.float32), apart)
    differences = residuals.astype(np.float64) - residuals[neighbours]
    return _floor(f"neighbours {apart} rows apart", differences, quantile)


def _floor(method: str, differences: Floats, quantile: float) -> Floor | None:
    """The noise of one is the difference of two, divided by the root of two: exact for Gaussians."""
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
    """Each column's ranks between 0 and 1, ties alike; missing values are one below all others."""
    ranks = np.empty(x.shape, dtype=np.float32)
    for index, column in enumerate(x.T):
        values, places = np.unique(np.nan_to_num(column, nan=-1.0), return_inverse=True)
        ranks[:, index] = places / max(1, len(values) - 1)
    return ranks


def _neighbours(x: Matrix, apart: int) -> NDArray[np.intp]:
    """Of each row its nearest one that is at least `apart` rows away, by brute force."""
    squares = (x**2).sum(axis=1)
    nearest = np.empty(len(x), dtype=np.intp)
    positions = np.arange(len(x))
    for begin in range(0, len(x), _AT_ONCE):
        part = positions[begin : begin + _AT_ONCE]
        distances = squares[None, :] - 2 * x[part] @ x.T
        distances[np.abs(positions[None, :] - part[:, None]) < apart] = np.inf
        nearest[part] = np.argmin(distances, axis=1)
    return nearest
