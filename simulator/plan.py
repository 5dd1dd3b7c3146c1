"""An engine's next steps, and the results of steps."""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from simulator.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """One applied step. `produced` are the ids of sequences that got a token; `finished` those that are complete."""

    duration_ms: float
    produced: list[Hashable]
    finished: list[Hashable]
    prefill_tokens: int
    decodes: int


@dataclass(slots=True)
class Plan:
    """An engine's next `steps` steps, which do the same work.

    The first takes `first_ms`, and each further one takes `growth_ms` longer than the one before. A plan with prefills
    has one step. `attention_ms` is what the prefills and the admissions add to it. A plan may be cut short, to one step
    at least.
    """

    steps: int = 1
    first_ms: float = 0.0
    growth_ms: float = 0.0
    decodes: int = 0
    prefills: list[Sequence] = field(default_factory=list)
    prefill_tokens: int = 0
    attention_ms: float = 0.0

    def duration_ms(self, steps: int) -> float:
        return steps * self.first_ms + self.growth_ms * (steps * (steps - 1) / 2)

    def steps_begun_by(self, elapsed_ms: float) -> int:
        """Return how many steps have begun after `elapsed_ms`, including the one in progress; at least 1."""
        if self.steps == 1 or elapsed_ms <= self.first_ms:
            return 1
        half = self.growth_ms / 2
        linear = self.first_ms - half
        if half * elapsed_ms < 1e-9 * linear * linear:
            begun = elapsed_ms / linear
        else:
            begun = (math.sqrt(linear * linear + 4 * half * elapsed_ms) - linear) / (2 * half)
        return min(max(math.ceil(begun - 1e-9), 1), self.steps)


@dataclass(slots=True)
class Progress:
    """The sequences that got their first token, those that reached a mark, and those that are complete."""

    first: list[Sequence] = field(default_factory=list)
    marked: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
