"""Goodput by search over rate: the largest rate at which a share of the requests meets its objectives.

Rates lie on a geometric grid, so that every policy and seed of a workload tries the same ones: results are compared at
equal rates, and a rate that was tried is never tried again. A search begins at a guess and strides over the grid until
one rate attains the share and a higher one doesn't, then bisects between them. Attainment is noisy: what is found is a
crossing of the share that was measured on both of its sides, one level apart, whatever the noise did elsewhere.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

SHARES = (0.9, 0.99)
_LONGEST_STRIDES = 4

AttainmentAt = Callable[[float], Awaitable[float]]
Known = Mapping[int, float]  # attainment by level


@dataclass(frozen=True, slots=True)
class Grid:
    """The rates that may be tried: `start_rps * ratio ** level`, down and up to `reach` levels from the start."""

    start_rps: float
    ratio: float = 1.02
    stride: int = 16
    reach: int = 192

    def rate(self, level: float) -> float:
        """Requests/s, to seven digits: a number that reads well and is the same wherever it is computed."""
        return float(f"{self.start_rps * self.ratio**level:.7g}")

    def level(self, rate_rps: float) -> int:
        """The nearest level to a rate."""
        return self._within(round(math.log(rate_rps / self.start_rps, self.ratio)))

    def beyond(self, known: Known, direction: Literal[-1, 1], stride: int) -> int | None:
        """The next level below or above all known ones, by longer and longer strides; None at the end of the grid."""
        edge = max(known) if direction > 0 else min(known)
        stride = min(max(stride, max(known) - min(known)), _LONGEST_STRIDES * self.stride)
        level = self._within(edge + direction * stride)
        return level if level != edge else None

    def _within(self, level: int) -> int:
        return max(-self.reach, min(level, self.reach))


@dataclass(frozen=True, slots=True)
class Guess:
    """The level to begin at, and the first stride from there: a short one where the guess is good."""

    level: int
    stride: int


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests/s; or a bound of it, where every rate that was tried, or none, attained the share."""

    rps: float
    bound: Literal["", "at least", "at most"] = ""


def next_level(known: Known, share: float, grid: Grid, guess: Guess) -> int | None:
    """The level to try next, or None when enough is known."""
    if not known:
        return guess.level
    below, above = _bracket(known, share)
    if below is None:
        return guess.level if guess.level < min(known) else grid.beyond(known, -1, guess.stride)
    if above is None:
        return guess.level if guess.level > max(known) else grid.beyond(known, 1, guess.stride)
    return (below + above) // 2 if above - below > 1 else None


def goodput(known: Known, share: float, grid: Grid) -> Goodput:
    """Between the last rate that attained the share and the next, which didn't, in proportion of their attainments."""
    below, above = _bracket(known, share)
    if below is None:
        return Goodput(grid.rate(min(known)), "at most")
    if above is None:
        return Goodput(grid.rate(below), "at least")
    part = (known[below] - share) / (known[below] - known[above])
    return Goodput(grid.rate(below + part * (above - below)))


async def search(attainment_at: AttainmentAt, grid: Grid, guesses: Mapping[float, Guess]) -> dict[float, Goodput]:
    """The goodput by share, each with its guess; what was tried for one share serves the next."""
    known: dict[int, float] = {}
    for share, guess in guesses.items():
        while (level := next_level(known, share, grid, guess)) is not None:
            known[level] = await attainment_at(grid.rate(level))
    return {share: goodput(known, share, grid) for share in guesses}


def _bracket(known: Known, share: float) -> tuple[int | None, int | None]:
    """The highest level that attains the share, and the lowest above it, which then doesn't."""
    below = max((level for level, attained in known.items() if attained >= share), default=None)
    if below is None:
        return None, None
    return below, min((level for level in known if level > below), default=None)
