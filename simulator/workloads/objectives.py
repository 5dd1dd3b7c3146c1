"""Objectives as multiples of a request's unloaded latency on the pool's fastest hardware.

The unloaded latency is that of the request alone on an idle engine with an empty cache. The engine computes the prompt
in pieces of its largest step, and then one token per step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from simulator.hardware import Hardware
from simulator.workloads.draw import Floats, Ints, Requests, stream


@dataclass(frozen=True, slots=True)
class SloMultiple:
    """A class of objectives, as multiples of the unloaded latencies, and the share of requests that have it."""

    name: str
    share: float
    ttft: float
    tpot: float


TIGHT = SloMultiple("tight", 0.3, ttft=5, tpot=2)
NORMAL = SloMultiple("normal", 0.4, ttft=10, tpot=3)
LOOSE = SloMultiple("loose", 0.3, ttft=25, tpot=6)
MIX = (TIGHT, NORMAL, LOOSE)
# Classes further apart, in equal shares: users who wait for each word, users who read along, and background jobs.
WIDE_MIX = (
    SloMultiple("tight", 1 / 3, ttft=4, tpot=1.7),
    SloMultiple("normal", 1 / 3, ttft=10, tpot=3),
    SloMultiple("loose", 1 / 3, ttft=60, tpot=10),
)


@dataclass(frozen=True, slots=True)
class Objectives:
    """Columns over requests: the index of the class in the mix, and the objectives in ms."""

    chosen: Ints
    ttft_ms: Floats
    tpot_ms: Floats


def objectives(
    requests: Requests, mix: Sequence[SloMultiple], hardware: Hardware, floor_tokens: int, seed: int
) -> Objectives:
    """Draw a class for each request, and return the objectives. Shorter prompts count as `floor_tokens` long.

    Without this floor, the TTFT objective of a very short prompt would be a few times one short step of an idle engine.
    One step of a busy engine takes longer, so no endpoint could meet it. Users wouldn't notice so short a time either.
    """
    prompt = np.maximum(requests.prompt_tokens, floor_tokens)
    groups = np.arange(prompt.size) if requests.groups is None else requests.groups
    drawn = stream(seed, "classes").random(int(groups.max(initial=-1)) + 1)[groups]
    bounds = np.cumsum([multiple.share for multiple in mix])
    chosen = np.minimum(np.searchsorted(bounds / bounds[-1], drawn, side="right"), len(mix) - 1)
    ttft = np.array([multiple.ttft for multiple in mix])
    tpot = np.array([multiple.tpot for multiple in mix])
    return Objectives(
        chosen=chosen,
        ttft_ms=ttft[chosen] * unloaded_ttft_ms(hardware, prompt),
        tpot_ms=tpot[chosen] * unloaded_tpot_ms(hardware, prompt, requests.output_tokens),
    )


def unloaded_ttft_ms(hardware: Hardware, prompt_tokens: Ints) -> Floats:
    """Return the time in which an idle engine prefills each prompt."""
    cost, largest = hardware.cost, hardware.max_num_batched_tokens
    pieces = int(prompt_tokens.max(initial=0)) // largest
    step_ms = (cost.dense_ms(largest) + cost.prefill_attention_ms(largest, i * largest) for i in range(pieces))
    whole_ms = [0.0, *accumulate(step_ms)]

    def ttft_ms(tokens: int) -> float:
        whole, rest = divmod(tokens, largest)
        if not rest:
            return whole_ms[whole]
        return whole_ms[whole] + cost.dense_ms(rest) + cost.prefill_attention_ms(rest, whole * largest)

    return _each(ttft_ms, prompt_tokens)


def unloaded_tpot_ms(hardware: Hardware, prompt_tokens: Ints, output_tokens: Ints) -> Floats:
    """Return the time of a step that decodes one sequence, with the context in the middle of its output."""
    dense_ms = hardware.cost.dense_ms(1)
    context = prompt_tokens + output_tokens // 2
    return _each(lambda tokens: dense_ms + hardware.cost.decode_attention_ms(1, tokens), context)


def fastest(endpoints: Sequence[Hardware], requests: Requests) -> Hardware:
    """Return the hardware on which an idle endpoint completes the median request soonest."""
    prompt = np.array([int(np.median(requests.prompt_tokens))])
    output = np.array([int(np.median(requests.output_tokens))])

    def answer_ms(hardware: Hardware) -> float:
        tpot_ms = unloaded_tpot_ms(hardware, prompt, output)
        return float(unloaded_ttft_ms(hardware, prompt)[0] + tpot_ms[0] * output[0])

    return min(endpoints, key=answer_ms)


def _each(function: Callable[[int], float], values: Ints) -> Floats:
    """Apply `function` to each value. Call it once per distinct value: lengths repeat among requests."""
    different, place = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in different.tolist()], dtype=np.float64)[place]
