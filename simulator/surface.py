"""From single measurements to a surface that an engine can trust: without holes, and never falling."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = Mapping[tuple[int, int], float]
"""Times in ms by (tokens, context)."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """`ms[i, j]` is the time at `tokens[i]` and `contexts[j]`, both ascending, contexts from 0."""

    tokens: NDArray[np.int64]
    contexts: NDArray[np.int64]
    ms: NDArray[np.float64]

    def at_tokens(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """A row for each of `wanted`: linear between the measured ones and beyond them, the smallest one's below."""
        return np.stack([extend(self.tokens, column, wanted) for column in self.ms.T], axis=1)

    def scaled(self, factor: float, offset_ms: float = 0.0) -> "Surface":
        return Surface(self.tokens, self.contexts, factor * self.ms + offset_ms)


def surface(points: Points) -> Surface:
    """Holes are filled from the measurements with as many tokens: linear between contexts and beyond, level below.

    Times are made monotone in both directions, since kernels that do more don't take less time: what falls in a table
    is noise, or another kernel that was chosen at that size.
    """
    by_tokens: dict[int, dict[int, float]] = {}
    for (count, context), ms in sorted(points.items()):
        by_tokens.setdefault(count, {})[context] = ms
    tokens = np.array(list(by_tokens))
    contexts = np.array(sorted({context for _, context in points} | {0}))
    rows = [extend(np.array(list(row)), np.array(list(row.values())), contexts) for row in by_tokens.values()]
    return Surface(tokens, contexts, monotone(np.array(rows)))


def monotone(ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The closest halfway: the mean of the least rising array above the values and of the greatest one below them."""
    above, below = ms, ms
    for axis in range(ms.ndim):
        above = np.maximum.accumulate(above, axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis), axis)
    return np.asarray((above + below) / 2)


def extend(at: NDArray[np.int64], ms: NDArray[np.float64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Linear between measurements and beyond the last (never falling there), level before the first."""
    slope = max(0.0, (ms[-1] - ms[-2]) / (at[-1] - at[-2])) if len(at) > 1 else 0.0
    return np.asarray(np.interp(wanted, at, ms) + slope * np.maximum(wanted - at[-1], 0))
