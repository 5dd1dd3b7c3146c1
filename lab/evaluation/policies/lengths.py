"""How long an answer is taken to be while it is generated: as long as it will be, or as long as can be expected."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.plan import OTHER_TRAFFIC
from simulator.workloads import WORKLOADS

Lengths = Callable[[int, int], int]
"""Given how long an answer will be, and how long it is so far, what to reckon with; all in tokens."""

_ANSWERS = 4000


def foreknown(length: int, generated: int) -> int:
    """What nobody can know before the end."""
    return length


def expected(answers: Sequence[int] | NDArray[np.int64]) -> Lengths:
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


def longer_than(answers: NDArray[np.int64], generated: int, rng: np.random.Generator) -> int:
    """One of `answers`, which are in order, that is longer than what is generated; if none is, one token longer."""
    first = int(answers.searchsorted(generated, "right"))
    return int(rng.choice(answers[first:])) if first < len(answers) else generated + 1


@cache
def answers_of(workload: str) -> NDArray[np.int64]:
    """In order, the lengths of answers in other traffic than any that is judged."""
    subject = WORKLOADS[workload]
    scenario = subject.scenario(subject.typical_rps, OTHER_TRAFFIC, _ANSWERS / subject.typical_rps)
    return np.sort([one.output_tokens for one in scenario.arrivals])


@cache
def expected_of(workload: str) -> Lengths:
    """By answers of other traffic than any that is judged."""
    return expected(answers_of(workload))
