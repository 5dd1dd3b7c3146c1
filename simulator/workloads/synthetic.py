"""Requests of made-up lengths that share nothing."""

from dataclasses import dataclass

import numpy as np

from simulator.workloads.draw import Floats, Ints, Requests, stream


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lengths in tokens around a median; `sigma` is the standard deviation of their logarithm."""

    median: float
    sigma: float

    def draw(self, rng: np.random.Generator, size: int | tuple[int, ...]) -> Ints:
        return whole_tokens(self.median * np.exp(self.sigma * rng.standard_normal(size)))


@dataclass(frozen=True, slots=True)
class ParetoTail:
    """A share of lengths that come from a Pareto distribution with this index, from `least` tokens on."""

    share: float
    least: float
    index: float


MODERATE_PROMPTS = Lognormal(median=800, sigma=0.5)
MODERATE_OUTPUTS = Lognormal(median=150, sigma=0.5)
HEAVY_PROMPTS = Lognormal(median=600, sigma=1.0)
HEAVY_OUTPUTS = Lognormal(median=120, sigma=1.0)
PROMPT_TAIL = ParetoTail(share=0.05, least=4_000, index=1.1)
OUTPUT_TAIL = ParetoTail(share=0.05, least=800, index=1.5)
# Longest prompt of the tail, in tokens: a service's limit. Without it, one request of millions of tokens decides a run.
LONGEST_PROMPT = 32_000
# Longest output of the tail, in tokens.
LONGEST_OUTPUT = 4_000


def moderate(seed: int, count: int) -> Requests:
    """Draw prompts and outputs of a chat without history, some hundred tokens each."""
    return Requests(
        MODERATE_PROMPTS.draw(stream(seed, "prompts"), count), MODERATE_OUTPUTS.draw(stream(seed, "outputs"), count)
    )


def heavy_tailed(seed: int, count: int) -> Requests:
    """Draw requests that are mostly short, while few long ones have most of the tokens."""
    return Requests(
        np.minimum(_with_tail(seed, "prompts", count, HEAVY_PROMPTS, PROMPT_TAIL), LONGEST_PROMPT),
        np.minimum(_with_tail(seed, "outputs", count, HEAVY_OUTPUTS, OUTPUT_TAIL), LONGEST_OUTPUT),
    )


def whole_tokens(lengths: Floats) -> Ints:
    return np.maximum(1, np.rint(lengths)).astype(np.int64)


def _with_tail(seed: int, purpose: str, count: int, body: Lognormal, tail: ParetoTail) -> Ints:
    lengths = body.draw(stream(seed, purpose), count)
    in_tail = stream(seed, f"{purpose} in the tail").random(count) < tail.share
    # Inverse of the Pareto distribution function at a uniform number, bounded so that it can be rounded to an integer.
    uniform = stream(seed, f"tail of {purpose}").random(count)
    tailed = np.minimum(tail.least * (1 - uniform) ** (-1 / tail.index), 1e9)
    return np.where(in_tail, whole_tokens(tailed), lengths)
