"""The time for which predictions stay wrong after an endpoint's speed has changed."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

# Bounds in percent: both median errors from above, and the coverage of the 0.9-quantile from both sides.
TTFT_MDAPE = 10.0
TPOT_MDAPE = 5.0
COVERAGE = (88.0, 92.0)
_BINS_IN_A_ROW = 2

Bin = tuple[float, float, float, float]  # start in s; TTFT MdAPE, TPOT MdAPE and coverage in percent


class Limits(NamedTuple):
    """Upper limits of both median errors, in percent."""

    ttft_mdape: float = TTFT_MDAPE
    tpot_mdape: float = TPOT_MDAPE


BOUNDS = Limits()


def limits_before(bins: Sequence[Bin], changed_s: float) -> Limits:
    """Return, for each latency, the largest of the bound and the errors of the last two bins before the change."""
    last = _before(bins, changed_s)[-_BINS_IN_A_ROW:]
    return Limits(*(max([bound, *(one[place] for one in last)]) for place, bound in enumerate(BOUNDS, 1)))


def recovery_s(bins: Sequence[Bin], changed_s: float, limits: Limits = BOUNDS) -> float | None:
    """Return the time from the change to the end of the first recovered bin, in s.

    That bin and the next have both errors within limits. Only bins that lie completely after the change count. Return
    None if the errors were beyond the limits before the change too, or never recover. Coverage isn't compared, because
    a bin has too few requests to tell 88% from 92%; see `coverage_after`.
    """
    before = _before(bins, changed_s)
    after = [one for one in bins if one[0] >= changed_s]
    if not before or not _meets(before[-1], limits):
        return None
    for start in range(len(after) - _BINS_IN_A_ROW + 1):
        if all(_meets(one, limits) for one in after[start : start + _BINS_IN_A_ROW]):
            return after[start][0] + _width(bins) - changed_s
    return None


def coverage_after(bins: Sequence[Bin], second: float) -> float | None:
    """Return the mean coverage of the bins from `second` on, in percent; None if there are none."""
    found = [coverage for at, _, _, coverage in bins if at >= second]
    return sum(found) / len(found) if found else None


def over_seeds(bins_of_seeds: Sequence[Sequence[Bin]]) -> list[Bin]:
    """Return means over the seeds. With one seed, a bin has too few requests on a single endpoint."""
    found: dict[float, list[Bin]] = defaultdict(list)
    for bins in bins_of_seeds:
        for one in bins:
            found[one[0]].append(one)
    return [_mean(at_s, found[at_s]) for at_s in sorted(found)]


def periods(bins: Sequence[Bin], changed_s: float) -> list[Bin]:
    """Return the last bin before the change and all bins after it, with starts in seconds since the change."""
    shown = (*_before(bins, changed_s)[-1:], *(one for one in bins if one[0] >= changed_s))
    return [(at_s - changed_s, ttft, tpot, coverage) for at_s, ttft, tpot, coverage in shown]


def _mean(at_s: float, bins: Sequence[Bin]) -> Bin:
    _, ttft, tpot, coverage = zip(*bins, strict=True)
    return at_s, fmean(ttft), fmean(tpot), fmean(coverage)


def _before(bins: Sequence[Bin], changed_s: float) -> list[Bin]:
    width = _width(bins)
    return [one for one in bins if one[0] + width <= changed_s]


def _meets(one: Bin, limits: Limits) -> bool:
    _, ttft, tpot, _ = one
    return ttft <= limits.ttft_mdape and tpot <= limits.tpot_mdape


def _width(bins: Sequence[Bin]) -> float:
    """Return the width of a bin in s: the shortest distance of two bins, because empty bins are missing."""
    return min((later[0] - earlier[0] for earlier, later in pairwise(bins)), default=0.0)
