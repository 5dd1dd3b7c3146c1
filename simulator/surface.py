"""Surfaces made of single measurements: without holes, and monotone in tokens and in context."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = Mapping[tuple[int, int], float]
"""Times in ms by (tokens, context)."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Times on a grid: `ms[i, j]` is the time at `tokens[i]` and `contexts[j]`.

    Both axes ascend; `contexts` begins with 0.
    """

    tokens: NDArray[np.int64]
    contexts: NDArray[np.int64]
    ms: NDArray[np.float64]

    def at_tokens(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a row for each of `wanted`: linear between and beyond the measured rows, constant below the first."""
        return np.stack([extend(self.tokens, column, wanted) for column in self.ms.T], axis=1)

    def scale(self, factor: float, offset_ms: float = 0.0) -> "Surface":
        return Surface(self.tokens, self.contexts, factor * self.ms + offset_ms)


def surface(points: Points) -> Surface:
    """Return the surface of these measurements.

    Holes are filled from measurements with the same number of tokens: linear between and beyond contexts, constant
    below the first. Times are made monotone in both directions, because more work doesn't take less time. A time that
    falls in a table is noise, or the library chose another kernel at that size.
    """
    by_tokens: dict[int, dict[int, float]] = {}
    for (count, context), ms in sorted(points.items()):
        by_tokens.setdefault(count, {})[context] = ms
    tokens = np.array(list(by_tokens))
    contexts = np.array(sorted({context for _, context in points} | {0}))
    rows = [extend(np.array(list(row)), np.array(list(row.values())), contexts) for row in by_tokens.values()]
    return Surface(tokens, contexts, monotone(np.array(rows)))


def monotone(ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a rising array: the mean of the lowest rising array above `ms` and the highest one below it."""
    above, below = ms, ms
    for axis in range(ms.ndim):
        above = np.maximum.accumulate(above, axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis), axis)
    return np.asarray((above + below) / 2)


def extend(at: NDArray[np.int64], ms: NDArray[np.float64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Extend measurements to `wanted`: linear between them, level before the first, never falling after the last."""
    slope = max(0.0, (ms[-1] - ms[-2]) / (at[-1] - at[-2])) if len(at) > 1 else 0.0
    return np.asarray(np.interp(wanted, at, ms) + slope * np.maximum(wanted - at[-1], 0))
