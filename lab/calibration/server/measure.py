"""Measure a server: find its limits, repeat the measurements until they are sure enough, and fit a calibration."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median

from lab.calibration.exceptions import MeasureError
from lab.calibration.server.agenda import Agenda, groups_of_prompts, make_agenda
from lab.calibration.server.asks import TimedServer
from lab.calibration.server.experiments import (
    measure_batches,
    measure_prompts,
    measure_shared,
    measure_texts,
)
from lab.calibration.server.fitting import fit
from lab.calibration.server.guard import Guard
from lab.calibration.server.limits import EngineLimits, find_sequences, find_token_budget
from lab.calibration.server.samples import Samples
from lab.calibration.server.traffic import LOADS, Traffic, fit_traffic, measure_traffic
from simulator.calibration_file import Calibration

_LEAST_REPETITIONS = 3
_MOST_REPETITIONS = 12
# Share of the time that may be added to finish the least repetitions.
_OVERTIME = 0.2
# Share of the time for traffic of each load.
_TRAFFIC = 0.06
# Repeat no more once the median of all measurements is this sure.
_SURE = 0.01


@dataclass(frozen=True, slots=True)
class Given:
    """What the operator says: limits that are not to be found by trying, the largest batch, the time in s, and noise.

    A median of all measurements less sure than `most_noise` is refused, and so is one in ten less sure than three times
    that.
    """

    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    most_batch: int = 256
    limit_s: float = 480.0
    most_noise: float = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the measurement tells what it does: `part` before each part, with how much is done, from 0 to 1."""

    part: Callable[[str, float], None]


async def find_limits(
    guard: Guard, server: TimedServer, max_model_len: int, given: Given, rng: random.Random
) -> EngineLimits:
    page = await server.page()
    # vLLM keeps one of its blocks as a placeholder.
    usable = max(page.num_blocks - 1, 1)
    longest = min(max_model_len, usable * page.block_tokens)
    notes = []
    sequences, budget = given.max_num_seqs, given.max_num_batched_tokens
    if sequences is None:
        sequences, note = await find_sequences(guard, server, rng)
        notes.append(note)
    if budget is None:
        budget, note = await find_token_budget(guard, rng, longest, usable * page.block_tokens)
        notes.append(note)
    return EngineLimits(
        usable_blocks=usable,
        block_tokens=page.block_tokens,
        has_prefix_cache=page.has_prefix_cache,
        max_model_len=max_model_len,
        max_num_seqs=sequences,
        max_num_batched_tokens=budget,
        notes=tuple(note for note in notes if note),
    )


async def calibrate(
    guard: Guard,
    found: EngineLimits,
    given: Given,
    rng: random.Random,
    progress: Progress,
    began_s: float,
    texts: Mapping[str, str],
) -> tuple[Calibration, dict[str, float]]:
    """Return the calibration of a server with these limits, and figures of the measurement. MeasureError if too noisy.

    The time counts from `began_s`, of the monotonic clock.
    """
    steps_given = replace(given, limit_s=(1 - len(LOADS) * _TRAFFIC) * given.limit_s)
    samples, repetitions = await take_samples(guard, found, steps_given, rng, progress, began_s)
    noise = require_sure(samples, given.most_noise)
    unsure = f"half of the times are less sure than {noise['noise_median_pct']:.1f} %"
    of_steps = fit(samples, found, texts, (*found.notes, unsure))
    calibration, error = of_steps, 0.0
    seen: list[Traffic] = []
    for number, load in enumerate(LOADS):
        progress.part(f"traffic at load {load}", 1 - (len(LOADS) - number) * _TRAFFIC)
        seconds = _TRAFFIC * given.limit_s
        seen.append(await measure_traffic(guard, rng, found, calibration, load, seconds))
        calibration, error = fit_traffic(of_steps, seen)
    under_traffic = f"under traffic its mean latencies are off by {100 * error:.1f} %"
    calibration = replace(calibration, notes=(*calibration.notes, under_traffic))
    return calibration, {"repetitions": repetitions, "traffic_error_pct": 100 * error, **noise}


async def take_samples(
    guard: Guard, found: EngineLimits, given: Given, rng: random.Random, progress: Progress, began_s: float
) -> tuple[Samples, int]:
    """Return the samples and the number of repetitions."""
    samples = Samples()
    progress.part("trying the server's speed", 0.0)
    plan = await make_agenda(guard, rng, found, given.most_batch, given.limit_s)
    took_s = (given.limit_s - (time.monotonic() - began_s)) / _LEAST_REPETITIONS
    for repetition in range(_MOST_REPETITIONS):
        from_s = time.monotonic()
        spent = (from_s - began_s) / given.limit_s

        def tell(name: str, share: float, spent: float = spent, took_s: float = took_s) -> None:
            progress.part(name, min(spent + share * took_s / given.limit_s, 1.0))

        await _repeat(guard, samples, plan, found, rng, tell)
        took_s = time.monotonic() - from_s
        left_s = given.limit_s - (time.monotonic() - began_s)
        if repetition + 1 < _LEAST_REPETITIONS:
            if left_s + _OVERTIME * given.limit_s < took_s:
                raise MeasureError(
                    f"{repetition + 1} of at least {_LEAST_REPETITIONS} repetitions fit into the time: raise --minutes"
                )
        elif left_s < took_s or median(samples.noise().values()) < _SURE:
            break
    return samples, repetition + 1


async def _repeat(
    guard: Guard,
    samples: Samples,
    plan: Agenda,
    found: EngineLimits,
    rng: random.Random,
    tell: Callable[[str, float], None],
) -> None:
    done = 0
    for group in groups_of_prompts(rng, plan):
        tell("prompts", done / plan.parts)
        await measure_prompts(guard, rng, samples, group)
        done += 1
    for batches in rng.sample(plan.batches, len(plan.batches)):
        tell(f"batches at {batches.context} tokens", done / plan.parts)
        await measure_batches(guard, rng, samples, batches, found.max_num_batched_tokens)
        done += 1
    if found.has_prefix_cache:
        for batches in plan.batches[1:]:
            await measure_shared(guard, rng, samples, batches, found.block_tokens)
    tell("texts", done / plan.parts)
    await measure_texts(guard, rng, samples, plan.texts)


def require_sure(samples: Samples, most_noise: float) -> dict[str, float]:
    """Return figures of the noise. Raise MeasureError if there is too much of it."""
    noise = samples.noise()
    middle, worst = median(noise.values()), max(noise, key=lambda name: noise[name])
    wild = sum(value > 3 * most_noise for value in noise.values())
    if middle > most_noise or wild > len(noise) / 10:
        raise MeasureError(
            f"too noisy to write: half of the measurements are less sure than {100 * middle:.0f} %, and the worst is "
            f"{worst}, by {100 * noise[worst]:.0f} %; {100 * most_noise:.0f} % is allowed. Measure on a quieter "
            "machine, or raise --max-noise"
        )
    return {"noise_median_pct": 100 * middle, "noise_worst_pct": 100 * noise[worst]}
