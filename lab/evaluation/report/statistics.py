"""Means over seeds, with Student's t intervals of 95%."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from headroom.report.intervals import half_width


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `seeds` and its interval. With one seed, there is no interval."""

    mean: float
    seeds: int
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; the mean, twice, if there is none."""
        return self.mean if self.low is None else self.low, self.mean if self.high is None else self.high

    def text(self, digits: int = 3) -> str:
        """Return the mean and the interval as text, with `digits` significant digits."""
        mean = _short(self.mean, digits)
        if self.low is None or self.high is None:
            return mean
        return f"{mean} [{_short(self.low, digits)}, {_short(self.high, digits)}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the arithmetic mean and its interval. Needs at least one value, all finite."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, len(values))
    half = half_width(values)
    return Interval(mean, len(values), mean - half, mean + half)


def geometric_interval(values: Sequence[float]) -> Interval:
    """Return the geometric mean and the t interval of the logarithms. All values must be above 0."""
    logs = mean_interval([math.log(value) for value in values])
    if logs.low is None or logs.high is None:
        return Interval(math.exp(logs.mean), logs.seeds)
    return Interval(math.exp(logs.mean), logs.seeds, math.exp(logs.low), math.exp(logs.high))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the geometric mean of `ours` / `theirs`, paired by seed.

    Both got the same requests, so much of the noise cancels.
    """
    return geometric_interval(ratios(ours, theirs))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def median_interval(
    by_group: Sequence[Sequence[float]], interval: Callable[[Sequence[float]], Interval] = geometric_interval
) -> Interval:
    """Return the mean over seeds (columns) of each seed's median over groups (rows).

    The interval shows the effect of other draws of requests, and not of other groups.
    """
    return interval([median(of_seed) for of_seed in zip(*by_group, strict=True)])


def _short(value: float, digits: int) -> str:
    """Format a number without an exponent, with `digits` significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
