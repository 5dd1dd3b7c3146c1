"""How long predictions stay wrong after an endpoint has changed its speed."""

from collections.abc import Sequence
from itertools import pairwise

TTFT_MDAPE = 10.0
TPOT_MDAPE = 5.0
COVERAGE = (88.0, 92.0)
_BINS_IN_A_ROW = 2

Bin = tuple[float, float, float, float]  # second at its start, TTFT MdAPE, TPOT MdAPE, coverage, all in percent


def recovery_s(bins: Sequence[Bin], changed_s: float) -> float | None:
    """From the change to the end of the first bin from which on two in a row have both errors within their bounds.

    Only bins that lie wholly after the change count. None where the errors were out of bounds before it too, or never
    come back. Coverage isn't asked for here: a bin has too few requests to tell 88% from 92%; see `coverage_after`.
    """
    width = _width(bins)
    before = [one for one in bins if one[0] + width <= changed_s]
    after = [one for one in bins if one[0] >= changed_s]
    if not before or not _within(before[-1]):
        return None
    for start in range(len(after) - _BINS_IN_A_ROW + 1):
        if all(_within(one) for one in after[start : start + _BINS_IN_A_ROW]):
            return after[start][0] + width - changed_s
    return None


def coverage_after(bins: Sequence[Bin], second: float) -> float | None:
    """Mean coverage of the bins from a second on, in percent; None if there are none."""
    found = [coverage for at, _, _, coverage in bins if at >= second]
    return sum(found) / len(found) if found else None


def _within(one: Bin) -> bool:
    _, ttft, tpot, _ = one
    return ttft <= TTFT_MDAPE and tpot <= TPOT_MDAPE


def _width(bins: Sequence[Bin]) -> float:
    """Seconds between bins; a bin without requests may be missing, so the shortest distance tells."""
    return min((later[0] - earlier[0] for earlier, later in pairwise(bins)), default=0.0)
