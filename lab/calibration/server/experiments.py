"""The measurements: prompts of many lengths after many contexts, and batches that decode at many contexts."""

import random
import string
from collections.abc import Sequence
from statistics import median

import numpy as np

from lab.calibration.server.agenda import Agenda, Batches
from lab.calibration.server.asks import Ask, Timeline, random_prompt
from lab.calibration.server.guard import Guard
from lab.calibration.server.samples import Cell, Samples, slices

# Requests that decode while others come, the tokens of those, their number, and the time from one to the next, as a
# multiple of what one takes alone.
DECODING = 4
PASSING_TOKENS = 128
_PASSING = 24
_GAP = 1.5


async def measure_prompts(guard: Guard, rng: random.Random, samples: Samples, cells: Sequence[tuple[int, int]]) -> None:
    """Time one prompt of each of these kinds, each alone. The prompts that they begin with are cached before."""
    kept = {cached: random_prompt(rng, cached) for _, cached in cells if cached}
    if kept:
        await guard.run([[Ask(prompt, 1)] for prompt in kept.values()])
    asks = [[Ask(kept.get(cached, ()) + random_prompt(rng, tokens), 1)] for tokens, cached in cells]
    hits = (await guard.server.page()).hit_tokens
    runs = await guard.run(asks)
    hits = (await guard.server.page()).hit_tokens - hits
    # Where the cache doesn't keep whole prompts, the context that was computed isn't known.
    is_cached = hits >= sum(cached for _, cached in cells)
    for at, [timeline] in zip(cells, runs, strict=True):
        if is_cached or not at[1]:
            samples.prefill.setdefault(at, Cell()).values.append(timeline.ttft_ms)


async def measure_batches(guard: Guard, rng: random.Random, samples: Samples, batches: Batches, budget: int) -> None:
    """Let a batch decode that gets smaller and smaller, and time its steps."""
    largest = batches.sizes[0]
    asks = []
    for index in range(largest):
        stages = sum(size > index for size in batches.sizes)
        # The first to begin have decoded for some steps when the last one begins.
        ahead = (largest - 1 - index) * batches.context // budget
        asks.append(Ask(random_prompt(rng, batches.context), stages * batches.steps + ahead))
    [timelines] = await guard.run([asks])
    _keep(samples, timelines, batches)


def _keep(samples: Samples, timelines: Sequence[Timeline], batches: Batches) -> None:
    of: dict[int, list[tuple[float, float]]] = {}
    for one in slices(timelines):
        if one.batch in batches.sizes:
            of.setdefault(one.batch, []).append((one.step_ms, batches.context + one.generated))
    for batch, values in of.items():
        at = batch, batches.context
        samples.decode.setdefault(at, Cell()).values.append(median(ms for ms, _ in values))
        samples.contexts.setdefault(at, Cell()).values.append(median(context for _, context in values))


async def measure_shared(guard: Guard, rng: random.Random, samples: Samples, batches: Batches, block: int) -> None:
    """Let a batch decode whose prompts begin with the same tokens, as many as the batches at this context have."""
    shared = batches.context // block * block
    size = batches.sizes[0]
    if not shared or size < 2:
        return
    start = random_prompt(rng, shared)
    await guard.run([[Ask(start, 1)]])
    [timelines] = await guard.run([[Ask(start + random_prompt(rng, 8), batches.steps) for _ in range(size)]])
    steps = [(one.step_ms, shared + 8 + one.generated) for one in slices(timelines) if one.batch == size]
    if steps:
        samples.shared.setdefault((size, shared), Cell()).values.append(median(ms for ms, _ in steps))
        contexts = samples.shared_contexts.setdefault((size, shared), Cell())
        contexts.values.append(median(context for _, context in steps))


async def measure_requests(guard: Guard, rng: random.Random, samples: Samples, plan: Agenda) -> None:
    """Let some requests decode, and prompts come and go beside them. Each delays the steps of those that decode.

    A prompt's step is longer than theirs. Besides, an engine has some work for each request, an API server on the same
    processor has more, and a step of prompts and decodes may be slower than either.
    """
    alone = await guard.run([[Ask(random_prompt(rng, PASSING_TOKENS), 1)] for _ in range(3)])
    gap_s = _GAP * median(timeline.ttft_ms for [timeline] in alone) / 1000
    lead_s = gap_s * _PASSING / 2
    steps = min(round(1000 * 2.2 * (lead_s + gap_s * _PASSING) / plan.step_ms), plan.most_decoded)
    decoding = [Ask(random_prompt(rng, 8), steps) for _ in range(DECODING)]
    passing = [Ask(random_prompt(rng, PASSING_TOKENS), 1, at_s=lead_s + gap_s * number) for number in range(_PASSING)]
    [timelines] = await guard.run([decoding + passing])
    delay_ms = delay_of_each(timelines[:DECODING], timelines[DECODING:], gap_s)
    if delay_ms is not None:
        samples.passing.values.append(delay_ms)


def delay_of_each(decoding: Sequence[Timeline], passing: Sequence[Timeline], gap_s: float) -> float | None:
    """Return the time in ms by which each request that passed delayed those that decoded; None if too few passed."""
    begun_s = max(timeline.times[0] for timeline in decoding)
    ended_s = min(timeline.times[-1] for timeline in decoding)
    passed = [timeline for timeline in passing if timeline.times[-1] + 2 * gap_s < ended_s]
    if len(passed) < _PASSING / 2 or passed[0].sent_s <= begun_s:
        return None
    borders = np.array([begun_s, passed[0].sent_s, passed[-1].times[-1] + gap_s / 4, ended_s])
    # As long after as before: the context grows meanwhile, and so do the steps.
    borders[3] = min(ended_s, borders[2] + borders[1] - borders[0])
    if len(passed) < len(passing):
        borders[2] = min(borders[2], passing[len(passed)].sent_s)
    counts = np.mean([np.interp(borders, one.times, one.tokens) for one in decoding], axis=0)
    took_ms, steps = 1000 * np.diff(borders), np.diff(counts)
    alone_ms = (took_ms[0] / steps[0] + took_ms[2] / steps[2]) / 2
    return float(took_ms[1] - alone_ms * steps[1]) / len(passed)


async def measure_texts(guard: Guard, rng: random.Random, samples: Samples, lengths: Sequence[int]) -> None:
    """Time prompts that the server must turn into tokens, beside as many tokens that it must not."""
    for words in lengths:
        text = " ".join("".join(rng.choices(string.ascii_lowercase, k=4)) for _ in range(words))
        [[timeline]] = await guard.run([[Ask(text, 1)]])
        if timeline.prompt_tokens:
            [[same]] = await guard.run([[Ask(random_prompt(rng, timeline.prompt_tokens), 1)]])
            samples.texts.setdefault(words, Cell()).values.append(
                (timeline.ttft_ms - same.ttft_ms) / timeline.prompt_tokens
            )
