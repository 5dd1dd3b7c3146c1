"""A real vLLM server is measured, and its twin in virtual time answers in about the same time."""

import dataclasses
import random

import pytest

from lab.calibration.server import measure
from lab.calibration.server.asks import Ask, random_prompt
from lab.calibration.server.client import HttpServer
from lab.calibration.server.command import measure_server
from lab.calibration.server.guard import Guard
from lab.calibration.server.twin import Twin
from simulator.calibration_file import format_calibration, parse_calibration
from simulator.hardware import measured_hardware
from tests.engines.conftest import Loop

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_twin_of_a_measured_server_is_about_as_fast(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some repetitions of little, however long a busy machine takes for them.
    monkeypatch.setattr(measure, "_MOST_REPETITIONS", 3)
    monkeypatch.setattr(measure, "_OVERTIME", 100.0)
    server = HttpServer(loop.server("tiny"), "", read_s=120.0)
    # Other servers share the processors, so that noise is no reason to fail here.
    given = measure.Given(most_batch=8, limit_s=40.0, most_noise=10.0)
    calibration, figures = await measure_server(server, given, "test", patience_s=120.0)
    assert figures["repetitions"] == 3
    limits = calibration.limits
    assert limits["block_tokens"] == 128
    assert (limits["max_model_len"], limits["max_num_seqs"]) == (8192, 64)
    # It is found from the times of steps, which other servers on these processors disturb.
    assert limits["max_num_batched_tokens"] == pytest.approx(1024, rel=0.5)
    read = parse_calibration(format_calibration(calibration), "written")
    twin = Twin(dataclasses.replace(measured_hardware("twin", read), max_num_batched_tokens=1024))
    rng = random.Random(1)
    asks = [Ask(random_prompt(rng, 600), 60) for _ in range(4)]
    async with HttpServer(loop.server("tiny"), "", watches=False) as again:
        await again.choose_model()
        # One block is vLLM's placeholder.
        assert limits["num_blocks"] == (await again.page()).num_blocks - 1
        [real] = await Guard(again, lambda line: None).run([asks])
    simulated = twin.replay(asks)
    ratio = max(one.e2e_ms for one in simulated) / max(one.e2e_ms for one in real)
    assert 1 / 3 < ratio < 3
