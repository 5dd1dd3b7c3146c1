"""The measurements: prompts of many lengths after many contexts, and batches that decode at many contexts."""

import random
import string
from collections.abc import Sequence
from statistics import median

from lab.calibration.server.agenda import Batches
from lab.calibration.server.asks import Ask, Timeline, random_prompt
from lab.calibration.server.guard import Guard
from lab.calibration.server.samples import Cell, Samples, slices


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
