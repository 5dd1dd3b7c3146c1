"""An engine in virtual time is measured like a server, and its costs are found again."""

import asyncio
import dataclasses
import random
import time
from collections.abc import Iterator, Sequence
from statistics import fmean

import pytest

from lab.calibration.exceptions import DisturbedError, MeasureError
from lab.calibration.server import measure
from lab.calibration.server.asks import Ask, Timeline, random_prompt
from lab.calibration.server.guard import Guard
from lab.calibration.server.measure import Given, Progress, find_limits, require_sure
from lab.calibration.server.page import Page
from lab.calibration.server.samples import Cell, Samples, slices
from lab.calibration.server.twin import Twin, capacity_rps
from simulator.calibration_file import Calibration, format_calibration, parse_calibration
from simulator.hardware import PRESETS, Hardware, measured_hardware

TEXTS = {"gpu": "g", "model": "m", "source": "s", "licence": "none"}
TRUE = dataclasses.replace(
    PRESETS["slow"],
    num_blocks=2_000,
    max_num_seqs=10,
    max_num_batched_tokens=256,
    max_model_len=8_192,
    request_ms=7.0,
    request_step_ms=11.0,
    mixed_step_ms=25.0,
    shared_discount=0.4,
)


@pytest.fixture(scope="module")
def calibration() -> Iterator[Calibration]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_LEAST_REPETITIONS", 2)
        yield asyncio.run(calibrate(TRUE))


async def calibrate(hardware: Hardware) -> Calibration:
    twin, rng, given = Twin(hardware), random.Random(1), Given(limit_s=480.0)
    guard = Guard(twin, lambda line: None)
    found = await find_limits(guard, twin, hardware.max_model_len, given, rng)
    tell = Progress(lambda name, done: None)
    calibration, figures = await measure.calibrate(guard, found, given, rng, tell, time.monotonic(), TEXTS)
    assert figures["noise_worst_pct"] < 0.1
    assert figures["traffic_error_pct"] < 1
    return parse_calibration(format_calibration(calibration), "written")


def test_limits_are_found_by_trying(calibration: Calibration) -> None:
    assert calibration.limits == {
        "num_blocks": TRUE.num_blocks - 1,
        "block_tokens": 16,
        "max_num_seqs": 10,
        "max_num_batched_tokens": 256,
        "max_model_len": 8_192,
    }


def test_the_time_before_the_engine_is_found(calibration: Calibration) -> None:
    # A prompt's token costs more than a decode there, which nobody can see from outside.
    assert calibration.request_ms + calibration.request_step_ms == pytest.approx(18.0, abs=0.3)


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5])
def test_what_requests_cost_each_other_is_found(calibration: Calibration, load: float) -> None:
    rng = random.Random(2)
    asks = [Ask(random_prompt(rng, rng.randrange(16, 600)), rng.randrange(1, 80)) for _ in range(100)]
    rate = load * capacity_rps(asks, TRUE)
    asks = [dataclasses.replace(ask, at_s=number / rate) for number, ask in enumerate(asks)]
    true, found = (Twin(one).replay(asks) for one in (TRUE, measured_hardware("found", calibration)))
    assert fmean(one.e2e_ms for one in found) == pytest.approx(fmean(one.e2e_ms for one in true), rel=0.03)
    assert fmean(one.ttft_ms for one in found) == pytest.approx(fmean(one.ttft_ms for one in true), rel=0.05)


@pytest.mark.parametrize(("tokens", "context"), [(4, 0), (64, 0), (256, 0), (16, 3_000), (100, 1_000), (256, 6_000)])
def test_steps_of_a_prompt_cost_what_they_cost(calibration: Calibration, tokens: int, context: int) -> None:
    found = measured_hardware("found", calibration).cost
    true_ms = TRUE.cost.dense_ms(tokens) + TRUE.cost.prefill_attention_ms(tokens, context)
    assert found.dense_ms(tokens) + found.prefill_attention_ms(tokens, context) == pytest.approx(true_ms, rel=0.02)


@pytest.mark.parametrize(("batch", "context"), [(1, 50), (1, 4_000), (3, 500), (10, 100), (10, 1_500), (10, 6_000)])
def test_steps_of_a_batch_cost_what_they_cost(calibration: Calibration, batch: int, context: int) -> None:
    found = measured_hardware("found", calibration).cost
    true_ms = TRUE.cost.dense_ms(batch) + TRUE.cost.decode_attention_ms(batch, batch * context)
    assert found.dense_ms(batch) + found.decode_attention_ms(batch, batch * context) == pytest.approx(true_ms, rel=0.02)


def test_what_sequences_save_for_shared_tokens_is_found(calibration: Calibration) -> None:
    assert calibration.shared_discount == pytest.approx(0.4, abs=0.03)


def test_what_is_too_noisy_is_refused_with_its_noise() -> None:
    samples = Samples(prefill={(1, 0): Cell([10.0, 10.1, 9.9]), (16, 0): Cell([10.0, 20.0, 30.0])})
    with pytest.raises(MeasureError, match=r"less sure than 2\d %, and the worst is prompt of 16 tokens .* by 45 %"):
        require_sure(samples, 0.1)
    assert require_sure(samples, 0.3)["noise_worst_pct"] == pytest.approx(45, abs=1)


def test_tokens_that_come_together_change_no_step_time() -> None:
    every = Timeline(0.0, [0.01 * step for step in range(1, 42)], list(range(1, 42)))
    in_fours = Timeline(0.0, [0.01 * step for step in range(1, 42, 4)], list(range(1, 42, 4)))
    found = slices([every, in_fours])
    assert [one.batch for one in found] == [2] * 4
    assert [one.step_ms for one in found] == pytest.approx([10.0] * 4)


class Shared(Twin):
    """A twin that others use as well: `strangers` says by run how many requests of others end during it."""

    def __init__(self, strangers: Sequence[int], present: Sequence[int] = ()) -> None:
        super().__init__(TRUE)
        self.strangers = list(strangers)
        self.present = list(present)
        self.others = 0
        self.runs = 0

    async def run(self, asks: Sequence[Ask]) -> list[Timeline]:
        self.runs += 1
        others = self.strangers.pop(0) if self.strangers else 0
        if others < 0:
            raise DisturbedError
        self.others += others
        return await super().run(asks)

    async def page(self) -> Page:
        page = await super().page()
        running = self.present.pop(0) if self.present else page.running
        return dataclasses.replace(page, ended=page.ended + self.others, running=running)


async def test_what_others_disturb_is_measured_again() -> None:
    server, told = Shared([1, -1, 0]), list[str]()
    guard = Guard(server, told.append)
    [[timeline]] = await guard.run([[Ask(random_prompt(random.Random(1), 16), 4)]])
    assert (server.runs, guard.disturbed, timeline.tokens) == (3, 2, [1, 2, 3, 4])
    assert told == ["other requests came; measuring this again"] * 2


async def test_a_busy_server_is_waited_for() -> None:
    server, told = Shared([], present=[3, 3]), list[str]()
    guard = Guard(server, told.append)
    await guard.run([[Ask(random_prompt(random.Random(1), 16), 1)]])
    assert told == ["waiting: the server has 3 other requests"]
    assert guard.waited_s == 1.0


async def test_a_server_that_stays_busy_is_refused() -> None:
    server = Shared([], present=[3] * 10)
    with pytest.raises(MeasureError, match="busy for 2 s: measure while it has less traffic"):
        await Guard(server, lambda line: None, patience_s=2.0).run([[Ask("x", 1)]])
    assert server.runs == 0
