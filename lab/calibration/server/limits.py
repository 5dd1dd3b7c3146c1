"""An engine's limits, found from its behaviour where its API and its metrics don't tell them."""

import math
import random
from dataclasses import dataclass
from statistics import median

import numpy as np

from lab.calibration.exceptions import MeasureError
from lab.calibration.server.asks import Ask, TimedServer, Timeline, random_prompt
from lab.calibration.server.guard import Guard

# Most sequences that are tried at once.
MOST_SEQUENCES = 1024
_FIRST_TRY = 64
# Tokens of prompts that are sent together to see in how many steps they are computed.
_FIRST_PROMPTS = 16_384
_MOST_PROMPTS = 65_536
_PROMPT = 512
_LEAST_STEPS = 6
_FEWEST_STEPS = 2
_TRIES = 3
# The prompts come this long after the request that decodes, in seconds.
_LEAD_S = 0.2
# A budget this near to a power of two is that power.
_NEAR = 0.2


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of an engine. `usable_blocks` leaves out vLLM's block that stands for none."""

    usable_blocks: int
    block_tokens: int
    has_prefix_cache: bool
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    notes: tuple[str, ...] = ()

    @property
    def capacity_tokens(self) -> int:
        return self.usable_blocks * self.block_tokens


async def find_sequences(guard: Guard, server: TimedServer, rng: random.Random) -> tuple[int, str]:
    """Return how many sequences the engine runs at once, and a note if it never let one wait."""
    count = _FIRST_TRY
    while True:
        asks = [Ask(random_prompt(rng, 8), 24) for _ in range(count)]
        [timelines] = await guard.run([asks])
        first_end_s = min(timeline.times[-1] for timeline in timelines)
        # A sequence that waits gets its first token after another one has ended.
        together = sum(timeline.times[0] < first_end_s for timeline in timelines)
        if together < count:
            return together, ""
        if count >= MOST_SEQUENCES:
            return count, f"max_num_seqs: the engine ran all of {count} at once, so that its limit may be higher"
        count = min(count * 2, MOST_SEQUENCES)


async def find_token_budget(
    guard: Guard, rng: random.Random, max_model_len: int, capacity_tokens: int
) -> tuple[int, str]:
    """Return how many tokens the engine computes in a step, and a note of how that was found.

    One request decodes, a token a step, while many prompts come at once. The steps that compute prompts are the long
    ones, and nearly all of them are full.
    """
    length = min(_PROMPT, max_model_len // 2)
    most = min(_MOST_PROMPTS, capacity_tokens // 2)
    total = min(_FIRST_PROMPTS, most)
    while True:
        count = max(total // length, 1)
        tries = [await _full_steps(guard, rng, count, length, max_model_len) for _ in range(_TRIES)]
        steps = median(tries)
        if steps >= _LEAST_STEPS or total * 2 > most:
            break
        total *= 2
    if steps < _FEWEST_STEPS:
        raise MeasureError(
            "can't find how many tokens a step computes: say --max-num-batched-tokens as the server was started with"
        )
    budget = count * length / (steps + 0.5)
    power = 2 ** round(math.log2(budget))
    if abs(budget / power - 1) <= max(_NEAR, 1.5 / steps):
        return power, f"max_num_batched_tokens: {count * length} tokens took {steps} full steps"
    return round(budget), f"max_num_batched_tokens is about right only: {count * length} tokens took {steps} full steps"


async def _full_steps(guard: Guard, rng: random.Random, count: int, length: int, max_model_len: int) -> int:
    prompts = [Ask(random_prompt(rng, length), 1, at_s=_LEAD_S) for _ in range(count)]
    watched = Ask(random_prompt(rng, 8), min(max_model_len // 2, 600))
    [[first, *others]] = await guard.run([[watched, *prompts]])
    return full_steps(first, others[0].sent_s, max(one.times[0] for one in others))


def full_steps(decoding: Timeline, from_s: float, to_s: float) -> int:
    """Return the number of long steps between two times, from the gaps between the tokens of a request."""
    ends = np.array(decoding.times[1:])
    gaps = np.diff(decoding.times) / np.maximum(np.diff(decoding.tokens), 1)
    among = gaps[(ends >= from_s) & (ends <= to_s + 1e-6)]
    if not len(among):
        return 0
    before = gaps[ends < from_s]
    long = among[among > 2 * (float(np.median(before)) if len(before) else 0.0)]
    return int((long > np.median(long) / 2).sum()) if len(long) else 0
