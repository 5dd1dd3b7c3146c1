"""The plan: which policies are run with which objectives, how often, and in what order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

# The base policy runs twice in each round: the difference between the two runs is the machine's own noise.
BASE, BASE_AGAIN = "default", "default-again"
POLICIES: Final = ("round-robin", BASE, "llmd-default", "slo")


class Multiple(NamedTuple):
    """Objectives as multiples of the time of one request alone on a server: the slowest one, or the fastest."""

    of_slowest: bool
    multiple: float


# At 5 times the slowest server's own time, each server meets the objectives unless requests queue. At 3 times the
# fastest server's own time, a slow one hardly does.
OBJECTIVES: Final[Mapping[str, Multiple]] = {"met": Multiple(True, 5.0), "tight": Multiple(False, 3.0)}


class PolicyRun(msgspec.Struct, frozen=True):
    """One run: a policy gets the requests of a round, with one kind of objectives."""

    round: int
    objectives: str
    policy: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All runs. Each round has its own requests, which all its policies get."""

    policies: Sequence[str]
    objectives: Sequence[str]
    rounds: int
    seed: int

    def runs(self) -> Iterator[PolicyRun]:
        """Yield all runs. The order within a round is random, so that a slow hour of the machine favours no policy."""
        again = [BASE_AGAIN] if BASE in self.policies else []
        for number in range(self.rounds):
            runs = [PolicyRun(number, kind, policy) for kind in self.objectives for policy in (*self.policies, *again)]
            random.Random(f"{self.seed}/{number}").shuffle(runs)
            yield from runs
