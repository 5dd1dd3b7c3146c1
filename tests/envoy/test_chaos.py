"""Test that no request is lost while clients abort, endpoints come and go, and prediction servers die."""

import asyncio
import itertools
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.envoy.backends import Backend
from tests.envoy.load import Outcomes, asks, send_all
from tests.envoy.predictors import Predictors, predicting
from tests.envoy.rig import Rig, running, until

pytestmark = pytest.mark.slow

SLO = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "2000", "x-slo-tpot-ms": "100"}
# On a busy machine, no prediction would come within the usual 20 ms.
PATIENT = ("--prediction-timeout", "2s")
COUNT = 6_000
ABORTED_SHARE = 0.05


async def knows(rig: Rig, backends: list[Backend]) -> bool:
    rows = (await rig.endpoints())["endpoints"]
    return {row["address"] for row in rows} == {backend.address for backend in backends}


async def drained(backend: Backend) -> None:
    """Wait until the backend has been idle for a while."""
    quiet = 0
    while quiet < 10:
        quiet = 0 if backend.active else quiet + 1
        await asyncio.sleep(0.01)


async def replace_backends(rig: Rig, replaced: list[str]) -> None:
    """Replace one backend after the other: remove it from the pool, drain it, restart it, and add it again."""
    for backend in itertools.cycle(rig.backends):
        others = [other for other in rig.backends if other is not backend]
        rig.set_endpoints(others)
        await until(partial(knows, rig, others))
        await drained(backend)
        await backend.stop()
        await backend.start()
        rig.set_endpoints(rig.backends)
        await until(partial(knows, rig, rig.backends))
        replaced.append(backend.name)


async def kill_predictors(predictors: Predictors, killed: list[int]) -> None:
    rng = random.Random(7)
    while True:
        port = rng.choice(predictors.ports)
        predictors.signal(port, signal.SIGKILL)
        killed.append(port)
        await asyncio.sleep(rng.uniform(0, 1))
        await predictors.restart(port)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("full_duplex", [False, True])
async def test_no_request_is_lost_in_chaos(tmp_path: Path, full_duplex: bool) -> None:
    async with (
        predicting(tmp_path) as predictors,
        running(tmp_path, backends=6, full_duplex=full_duplex, picker_flags=[*predictors.flags, *PATIENT]) as rig,
    ):
        outcomes, replaced, killed = Outcomes(), list[str](), list[int]()
        chaos = [
            asyncio.create_task(replace_backends(rig, replaced)),
            asyncio.create_task(kill_predictors(predictors, killed)),
        ]
        plan = itertools.islice(asks(COUNT, ABORTED_SHARE), COUNT)
        await asyncio.gather(
            send_all(rig.url, plan, outcomes, workers=12),
            send_all(rig.url, plan, outcomes, workers=12, headers=SLO),
        )
        assert not any(task.done() for task in chaos), chaos
        for task in chaos:
            task.cancel()
        await asyncio.gather(*chaos, return_exceptions=True)
        assert outcomes.wrong == []
        assert outcomes.total == COUNT
        assert replaced
        assert killed
        assert outcomes.aborted > COUNT * ABORTED_SHARE / 10
        assert await rig.envoy_stat("http.inference.ext_proc.failure_mode_allowed") == 0
        assert await rig.metric("headroom_epp_refused_requests_total") == 0
        # Between the restarts some predictions came in time. Their number depends on the machine.
        assert await rig.metric("headroom_epp_decisions_total", source="remote") > 0
        await until(rig.is_idle)
        assert await rig.metric("headroom_epp_in_flight_requests") == 0
        assert await rig.metric("inference_model_running_requests") == 0
