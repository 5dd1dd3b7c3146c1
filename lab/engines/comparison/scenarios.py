"""The requests that a real engine and its twin both get: several kinds of load, each from one seed."""

import random
from dataclasses import dataclass

from lab.calibration.server import twin
from lab.calibration.server.asks import Ask, random_prompt
from simulator.hardware import Hardware

# Requests that are sent at once to the twin, to find its capacity.
_AT_ONCE = 150
_URGENT, _PATIENT = 0, 5


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens, log-normal around a median and cut at the largest."""

    median: int
    largest: int
    spread: float = 0.7

    def draw(self, rng: random.Random) -> int:
        return min(max(round(self.median * rng.lognormvariate(0, self.spread)), 1), self.largest)


@dataclass(frozen=True, slots=True)
class Mix:
    """A kind of requests. `load` is their rate, as a share of the rate that the engine can keep up with.

    A share of the prompts begins with one prefix, a share is long, a share of the clients leaves early, and with
    `priorities`, half of the requests are more urgent than the others.
    """

    name: str
    load: float
    prompts: Lengths = Lengths(200, 2_000)
    outputs: Lengths = Lengths(40, 200)
    prefix_tokens: int = 0
    prefix_share: float = 0.0
    long_tokens: int = 0
    long_share: float = 0.0
    leaving_share: float = 0.0
    priorities: bool = False


MIXES = (
    *(Mix(f"load-{load}", load) for load in (0.3, 0.5, 0.7, 0.9, 1.2)),
    Mix("prefix-hits", 0.8, prompts=Lengths(100, 1_000), prefix_tokens=1_536, prefix_share=0.7),
    Mix("long-prompts", 0.7, prompts=Lengths(60, 400), outputs=Lengths(80, 300), long_tokens=4_000, long_share=0.08),
    Mix("leaving", 0.9, leaving_share=0.3),
    Mix("priorities", 1.1, priorities=True),
)


def capacity_rps(mix: Mix, hardware: Hardware, seed: int) -> float:
    """Return how many requests of a kind the twin completes in a second when it always has enough of them."""
    return twin.capacity_rps(requests(mix, seed, "capacity", 1.0, _AT_ONCE, hardware), hardware)


def requests(mix: Mix, seed: int, salt: str, rate: float, count: int, hardware: Hardware) -> list[Ask]:
    """Return requests with Poisson arrivals.

    Their lengths and arrivals depend on the seed alone; `salt` decides the tokens, so that a second run finds nothing
    of the first one in the prefix cache.
    """
    shape, tokens = random.Random(f"{seed}/{mix.name}"), random.Random(f"{seed}/{mix.name}/{salt}")
    prefix = random_prompt(tokens, min(mix.prefix_tokens, hardware.max_model_len // 4))
    longest = hardware.max_model_len // 2
    at_s, asks = 0.0, []
    for _ in range(count):
        at_s += shape.expovariate(rate)
        output = mix.outputs.draw(shape)
        length = mix.prompts.draw(shape)
        start = prefix if shape.random() < mix.prefix_share else ()
        if shape.random() < mix.long_share:
            length = mix.long_tokens
        leaves = shape.random() < mix.leaving_share
        leave_s = shape.uniform(0.0, 0.8)
        urgent = shape.random() < 0.5
        asks.append(
            Ask(
                start + random_prompt(tokens, min(length, longest)),
                min(output, longest),
                at_s,
                leave_s if leaves else None,
                _PATIENT if mix.priorities and not urgent else _URGENT,
            )
        )
    return asks
