"""How long predictions stay wrong after an endpoint has changed its speed."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

TTFT_MDAPE = 10.0
TPOT_MDAPE = 5.0
COVERAGE = (88.0, 92.0)
_BINS_IN_A_ROW = 2

Bin = tuple[float, float, float, float]  # second at its start, TTFT MdAPE, TPOT MdAPE, coverage, all in percent


class Limits(NamedTuple):
    """Of both median errors, in percent."""

    ttft_mdape: float = TTFT_MDAPE
    tpot_mdape: float = TPOT_MDAPE


BOUNDS = Limits()


def limits_before(bins: Sequence[Bin], changed_s: float) -> Limits:
    """The worse errors of the last two bins before the change, where those are out of bounds, else the bounds."""
    last = _before(bins, changed_s)[-_BINS_IN_A_ROW:]
    return Limits(*(max([bound, *(one[place] for one in last)]) for place, bound in enumerate(BOUNDS, 1)))


def recovery_s(bins: Sequence[Bin], changed_s: float, limits: Limits = BOUNDS) -> float | None:
    """From the change to the end of the first bin from which on two in a row have both errors within their limits.

    Only bins that lie wholly after the change count. None where the errors were out of limits before it too, or never
    come back. Coverage isn't asked for here: a bin has too few requests to tell 88% from 92%; see `coverage_after`.
    """
    before = _before(bins, changed_s)
    after = [one for one in bins if one[0] >= changed_s]
    if not before or not _within(before[-1], limits):
        return None
    for start in range(len(after) - _BINS_IN_A_ROW + 1):
        if all(_within(one, limits) for one in after[start : start + _BINS_IN_A_ROW]):
            return after[start][0] + _width(bins) - changed_s
    return None


def coverage_after(bins: Sequence[Bin], second: float) -> float | None:
    """Mean coverage of the bins from a second on, in percent; None if there are none."""
    found = [coverage for at, _, _, coverage in bins if at >= second]
    return sum(found) / len(found) if found else None


def over_seeds(bins_of_seeds: Sequence[Sequence[Bin]]) -> list[Bin]:
    """Means over the seeds: of one, a bin has so few requests on a single endpoint that chance decides."""
    found: dict[float, list[Bin]] = defaultdict(list)
    for bins in bins_of_seeds:
        for one in bins:
            found[one[0]].append(one)
    return [_mean(at_s, found[at_s]) for at_s in sorted(found)]


def periods(bins: Sequence[Bin], changed_s: float) -> list[Bin]:
    """The last bin before the change and those after it, in seconds from the change."""
    shown = (*_before(bins, changed_s)[-1:], *(one for one in bins if one[0] >= changed_s))
    return [(at_s - changed_s, ttft, tpot, coverage) for at_s, ttft, tpot, coverage in shown]


def _mean(at_s: float, bins: Sequence[Bin]) -> Bin:
    _, ttft, tpot, coverage = zip(*bins, strict=True)
    return at_s, fmean(ttft), fmean(tpot), fmean(coverage)


def _before(bins: Sequence[Bin], changed_s: float) -> list[Bin]:
    width = _width(bins)
    return [one for one in bins if one[0] + width <= changed_s]


def _within(one: Bin, limits: Limits) -> bool:
    _, ttft, tpot, _ = one
    return ttft <= limits.ttft_mdape and tpot <= limits.tpot_mdape


def _width(bins: Sequence[Bin]) -> float:
    """Seconds between bins; a bin without requests may be missing, so the shortest distance tells."""
    return min((later[0] - earlier[0] for earlier, later in pairwise(bins)), default=0.0)
