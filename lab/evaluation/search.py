"""The search for goodput: the largest rate at which a share of the requests meets its objectives.

Rates lie on a geometric grid. All policies and seeds of a workload try rates of this grid, so results are compared at
equal rates, and no rate is tried twice. A search begins at a guess and strides over the grid until one rate attains the
share and a higher one doesn't. Then it bisects between them. Attainment is noisy, and may cross the share several
times. The result is one crossing, measured on both sides, one level apart.
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
    """The rates that may be tried: `start_rps * ratio ** level`, for levels from `-reach` to `reach`."""

    start_rps: float
    ratio: float = 1.02
    stride: int = 16
    reach: int = 192

    def rate(self, level: float) -> float:
        """Return requests/s, rounded to seven digits, so that the number is short and the same on every machine."""
        return float(f"{self.start_rps * self.ratio**level:.7g}")

    def level(self, rate_rps: float) -> int:
        """Return the level nearest to a rate."""
        return self._within(round(math.log(rate_rps / self.start_rps, self.ratio)))

    def beyond(self, known: Known, direction: Literal[-1, 1], stride: int) -> int | None:
        """Return the next level below or above all known ones; None at the end of the grid. Strides grow."""
        edge = max(known) if direction > 0 else min(known)
        stride = min(max(stride, max(known) - min(known)), _LONGEST_STRIDES * self.stride)
        level = self._within(edge + direction * stride)
        return level if level != edge else None

    def _within(self, level: int) -> int:
        return max(-self.reach, min(level, self.reach))


@dataclass(frozen=True, slots=True)
class Guess:
    """The level at which a search begins, and its first stride: short if the guess is good."""

    level: int
    stride: int


@dataclass(frozen=True, slots=True)
class Goodput:
    """A goodput in requests/s. It is a bound if every tried rate, or none, attained the share."""

    rps: float
    bound: Literal["", "at least", "at most"] = ""


def next_level(known: Known, share: float, grid: Grid, guess: Guess) -> int | None:
    """Return the level to try next, or None when the search is complete."""
    if not known:
        return guess.level
    below, above = _bracket(known, share)
    if below is None:
        return guess.level if guess.level < min(known) else grid.beyond(known, -1, guess.stride)
    if above is None:
        return guess.level if guess.level > max(known) else grid.beyond(known, 1, guess.stride)
    return (below + above) // 2 if above - below > 1 else None


def goodput(known: Known, share: float, grid: Grid) -> Goodput:
    """Return the goodput, interpolated between the highest rate that attained the share and the next rate."""
    below, above = _bracket(known, share)
    if below is None:
        return Goodput(grid.rate(min(known)), "at most")
    if above is None:
        return Goodput(grid.rate(below), "at least")
    part = (known[below] - share) / (known[below] - known[above])
    return Goodput(grid.rate(below + part * (above - below)))


async def search(attainment_at: AttainmentAt, grid: Grid, guesses: Mapping[float, Guess]) -> dict[float, Goodput]:
    """Search the goodput for each share. `guesses` are by share. All shares use the same tried rates."""
    known: dict[int, float] = {}
    for share, guess in guesses.items():
        while (level := next_level(known, share, grid, guess)) is not None:
            known[level] = await attainment_at(grid.rate(level))
    return {share: goodput(known, share, grid) for share in guesses}


def _bracket(known: Known, share: float) -> tuple[int | None, int | None]:
    """Return the highest level that attains the share, and the next known level above it."""
    below = max((level for level, attained in known.items() if attained >= share), default=None)
    if below is None:
        return None, None
    return below, min((level for level in known if level > below), default=None)
