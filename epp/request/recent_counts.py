"""Counts of the last hour's requests by steps of time: how many met their objectives, and what was refused."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from epp.request.outcome_journal import Row

# Seconds of a step. Steps begin at multiples of it in Unix time, so that the steps of several workers can be added.
STEP_S = 5
_STEPS = 3600 // STEP_S


class Group(msgspec.Struct):
    """Ended requests of one profile and one declared objective. `judged` is how many can be said to have met theirs."""

    requests: int = 0
    judged: int = 0
    met: int = 0
    output_tokens: int = 0


class Step(msgspec.Struct):
    """What ended between `at` in Unix time and the next step: groups by profile and objective, counts by reason."""

    at: int
    groups: dict[tuple[str, str], Group] = {}
    sources: dict[str, int] = {}
    refused: dict[str, int] = {}

    def add(self, other: "Step") -> None:
        """Add another worker's counts."""
        for key, theirs in other.groups.items():
            own = self.groups.setdefault(key, Group())
            own.requests += theirs.requests
            own.judged += theirs.judged
            own.met += theirs.met
            own.output_tokens += theirs.output_tokens
        self.sources = dict(Counter(self.sources) + Counter(other.sources))
        self.refused = dict(Counter(self.refused) + Counter(other.refused))


class RecentCounts:
    """Counts each ended or refused request. Steps in which nothing happened are left out. `clock` tells Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._steps: deque[Step] = deque(maxlen=_STEPS)

    def ended(self, row: Row) -> None:
        step = self._step()
        group = step.groups.setdefault((row.profile, row.objective), Group())
        group.requests += 1
        group.output_tokens += row.output_tokens or 0
        step.sources[row.source] = step.sources.get(row.source, 0) + 1
        if (is_met := row.is_met) is not None:
            group.judged += 1
            group.met += is_met

    def refused(self, reason: str) -> None:
        """Count a request that the picker answered itself."""
        counts = self._step().refused
        counts[reason] = counts.get(reason, 0) + 1

    def since(self, at: float) -> list[Step]:
        """Return the steps that begin at `at` or later, the earliest first."""
        return [step for step in self._steps if step.at >= at]

    def _step(self) -> Step:
        at = int(self._clock() // STEP_S) * STEP_S
        # A clock that is set back adds to the newest step.
        if not self._steps or self._steps[-1].at < at:
            self._steps.append(Step(at))
        return self._steps[-1]


def together(workers: Sequence[Sequence[Step]]) -> list[Step]:
    """Return the steps of all workers, added up, the earliest first."""
    found: dict[int, Step] = {}
    for steps in workers:
        for step in steps:
            found.setdefault(step.at, Step(step.at)).add(step)
    return [found[at] for at in sorted(found)]
