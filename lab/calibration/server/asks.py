"""Requests to measure a server by, and the times at which their tokens came."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lab.calibration.server.page import Page

# Ids of plain tokens in every vocabulary of 1,024 entries or more. Special tokens are commonly the first or the last.
_TOKENS = range(300, 1000)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a server: a prompt of token ids or a text, and the exact number of tokens to answer with.

    It is sent `at_s` seconds after the start. A client with `leave_s` closes the connection that long after sending.
    """

    prompt: tuple[int, ...] | str
    output_tokens: int
    at_s: float = 0.0
    leave_s: float | None = None
    priority: int = 0


@dataclass(slots=True)
class Timeline:
    """What a client saw of its request, in seconds since the start of the run.

    `tokens[i]` tokens had come at `times[i]`. `prompt_tokens` is what the server counted, or 0.
    """

    sent_s: float
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0

    @property
    def ttft_ms(self) -> float:
        return (self.times[0] - self.sent_s) * 1000

    @property
    def e2e_ms(self) -> float:
        return (self.times[-1] - self.sent_s) * 1000

    @property
    def tpot_ms(self) -> float | None:
        """The time per token after those that came first; None if all came at once."""
        later = self.tokens[-1] - self.tokens[0]
        return (self.times[-1] - self.times[0]) * 1000 / later if later else None


class TimedServer(Protocol):
    """A server that can be measured: a real one over HTTP, or an engine in virtual time."""

    async def run(self, asks: Sequence[Ask]) -> list[Timeline]:
        """Send all requests at their times, and return what came of them, in the same order."""

    async def page(self) -> Page:
        """Read the server's metrics."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""


def random_prompt(rng: random.Random, tokens: int) -> tuple[int, ...]:
    """Return a prompt that shares no beginning with another one, so that no prefix cache has it."""
    return tuple(rng.choices(_TOKENS, k=tokens))
