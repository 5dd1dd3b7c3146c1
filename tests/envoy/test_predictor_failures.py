"""Test that hung prediction servers delay only the few requests that detect the hang, and lose none."""

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.envoy.load import load
from tests.envoy.predictors import predicting
from tests.envoy.rig import Rig, running, until

pytestmark = pytest.mark.slow

SLO = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "2000", "x-slo-tpot-ms": "100"}
PREDICTIONS = "headroom_epp_prediction_duration_seconds"
WORKERS = 4


async def predicted(rig: Rig) -> float:
    return await rig.metric("headroom_epp_decisions_total", profile="slo", source="remote")


async def paid_the_deadline(rig: Rig) -> float:
    """Return how many predictions failed only after more than 10 ms, that is, at the deadline of 20 ms."""
    unavailable = await rig.metric(f"{PREDICTIONS}_count", outcome="unavailable")
    return unavailable - await rig.metric(f"{PREDICTIONS}_bucket", outcome="unavailable", le="0.01")


async def has_predicted(rig: Rig, more_than: float) -> bool:
    return await predicted(rig) > more_than


async def test_hung_predictors_delay_few_requests_and_lose_none(tmp_path: Path) -> None:
    async with predicting(tmp_path) as predictors, running(tmp_path, picker_flags=predictors.flags) as rig:
        async with load(rig.url, workers=WORKERS, headers=SLO) as outcomes:
            await until(partial(has_predicted, rig, 50))
            paid = await paid_the_deadline(rig)
            for port in predictors.ports:
                predictors.signal(port, signal.SIGSTOP)
            before = outcomes.total
            await outcomes.reach(before + 500)
            asked = outcomes.total - before
            # Only concurrent requests detect a hung server; later one request at a time tries the server again.
            assert 0 < await paid_the_deadline(rig) - paid < asked / 5
            fallback = await rig.metric("headroom_epp_decisions_total", profile="default", source="fallback")
            assert fallback > asked / 2
            for port in predictors.ports:
                predictors.signal(port, signal.SIGCONT)
            # The picker may try the servers again only after some seconds. Until then a small load is enough.
            outcomes.pause_s = 0.05
            await until(partial(has_predicted, rig, await predicted(rig) + 50))
        assert outcomes.wrong == []
        await until(rig.is_idle)
