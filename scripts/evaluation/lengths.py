"""How long an answer is taken to be while it is generated: as long as it will be, or as long as can be expected."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from scripts.evaluation.plan import OTHER_TRAFFIC
from simulator.workloads import WORKLOADS

Lengths = Callable[[int, int], int]
"""Given how long an answer will be, and how long it is so far, what to reckon with; all in tokens."""

_ANSWERS = 4000


def foreknown(length: int, generated: int) -> int:
    """What nobody can know before the end."""
    return length


def expected(answers: Sequence[int]) -> Lengths:
    """Whatever the length, the mean of those of `answers` that are longer than it is so far.

    One that is as long as the longest of them is expected to end with the next token.
    """
    ordered = np.sort(answers)
    sums = np.append(ordered[::-1].cumsum()[::-1], 0)
    longer_from = ordered.searchsorted(np.arange(ordered[-1]), "right")
    means: list[int] = np.rint(sums[longer_from] / (len(ordered) - longer_from)).astype(int).tolist()

    def mean_of_longer(length: int, generated: int) -> int:
        return means[generated] if generated < len(means) else generated + 1

    return mean_of_longer


@cache
def expected_of(workload: str) -> Lengths:
    """By answers of other traffic than any that is judged."""
    subject = WORKLOADS[workload]
    scenario = subject.scenario(subject.typical_rps, OTHER_TRAFFIC, _ANSWERS / subject.typical_rps)
    return expected([one.output_tokens for one in scenario.arrivals])
