"""Assumed lengths of answers in progress: the true length, or the length to expect."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.plan import OTHER_TRAFFIC
from simulator.workloads import WORKLOADS

Lengths = Callable[[int, int], int]
"""Called with an answer's true length and the tokens generated so far; returns the length to assume. All in tokens."""

# Answers of other traffic from which lengths are expected.
_ANSWERS = 4000


def known_length(length: int, generated: int) -> int:
    """Return the true length, which no router can know."""
    return length


def expected_by(answers: Sequence[int] | NDArray[np.int64]) -> Lengths:
    """Return a function that ignores the true length, and returns the mean of the longer ones of `answers`.

    An answer that is at least as long as the longest of `answers` is expected to end with the next token.
    """
    ordered = np.sort(answers)
    sums = np.append(ordered[::-1].cumsum()[::-1], 0)
    longer_from = ordered.searchsorted(np.arange(ordered[-1]), "right")
    means: list[int] = np.rint(sums[longer_from] / (len(ordered) - longer_from)).astype(int).tolist()

    def mean_of_longer(length: int, generated: int) -> int:
        return means[generated] if generated < len(means) else generated + 1

    return mean_of_longer


def longer_than(answers: NDArray[np.int64], generated: int, rng: np.random.Generator) -> int:
    """Draw one of the sorted `answers` that are longer than `generated`. If there is none, return `generated` + 1."""
    first = int(answers.searchsorted(generated, "right"))
    return int(rng.choice(answers[first:])) if first < len(answers) else generated + 1


@cache
def answer_lengths(workload: str) -> NDArray[np.int64]:
    """Return the sorted lengths of answers in traffic that isn't judged."""
    subject = WORKLOADS[workload]
    scenario = subject.scenario(subject.typical_rps, OTHER_TRAFFIC, _ANSWERS / subject.typical_rps)
    return np.sort([one.output_tokens for one in scenario.arrivals])


@cache
def expected_lengths(workload: str) -> Lengths:
    """Return expected lengths by the answers in traffic that isn't judged."""
    return expected_by(answer_lengths(workload))
