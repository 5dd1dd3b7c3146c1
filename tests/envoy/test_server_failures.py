"""Test what clients see if a model server hangs or resets, and that clients can't steer Envoy's retries."""

import asyncio
from pathlib import Path

import pytest

from tests.envoy.clients import Answer
from tests.envoy.load import PATH
from tests.envoy.predictors import predicting
from tests.envoy.rig import Rig, running, until

pytestmark = pytest.mark.slow

DONE = b"data: [DONE]\n\n"
STREAMED = b'{"model": "m", "prompt": "hello", "stream": true}'
SLO = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "2000", "x-slo-tpot-ms": "100"}
TRIES_TIMED_OUT = "cluster.pool.upstream_rq_per_try_timeout"


async def served_beside_a_silent_server(rig: Rig, act: str) -> None:
    """Send streamed requests until the silent server got one; assert that other servers answered all of them."""
    silent = rig.backends[0]
    while not silent.received:
        sent = [rig.h2.send(PATH, body=STREAMED, headers={**SLO, "x-act": act}) for _ in range(8)]
        answers = await asyncio.gather(*sent)
        assert {answer.status for answer in answers} == {200}
        assert all(answer.body.endswith(DONE) for answer in answers)
    await until(rig.is_idle)
    assert await rig.metric("headroom_epp_in_flight_requests") == 0


@pytest.mark.parametrize("full_duplex", [False, True])
async def test_a_server_that_hangs_costs_no_streamed_request(tmp_path: Path, full_duplex: bool) -> None:
    async with predicting(tmp_path) as predictors:
        # Only predicted requests are bounded, and a busy machine predicts late.
        flags = [*predictors.flags, "--try-timeout-factor", "1", "--prediction-timeout", "5s"]
        async with running(tmp_path, full_duplex=full_duplex, picker_flags=flags) as rig:
            await served_beside_a_silent_server(rig, f"silent={rig.backends[0].name}")
            assert await rig.envoy_stat(TRIES_TIMED_OUT) >= 1
            heard = [name for backend in rig.backends for one in backend.received for name in one.headers]
            assert "x-envoy-upstream-rq-per-try-timeout-ms" not in heard


async def test_clients_steer_neither_timeouts_nor_retries(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        wish = {"x-act": "events=10,5", "x-envoy-upstream-rq-timeout-ms": "1"}
        assert (await rig.h2.send(PATH, body=STREAMED, headers=wish)).status == 200
        greed = {"x-act": "status=500", "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "50"}
        before = rig.received
        assert (await rig.h2.send(PATH, body=STREAMED, headers=greed)).status == 500
        assert rig.received == before + 1


async def test_a_server_that_fails_or_ends_its_streams_early_does_not_draw_the_requests(tmp_path: Path) -> None:
    async with running(tmp_path, backends=4, picker_flags=["--observed-responses-per-second", "1000"]) as rig:
        for broken, way in ((rig.backends[0], "broken"), (rig.backends[1], "half")):
            act, before = {"x-act": f"{way}={broken.name}"}, len(broken.received)
            while len(broken.received) < before + 3:
                await rig.h2.send(PATH, body=STREAMED, headers=act)
            failed = 0
            for _ in range(100):
                failed += not (await rig.h2.send(PATH, body=STREAMED, headers=act)).body.endswith(DONE)
            # The endpoint is tried again when its time is over. Without the rule it fails a quarter of the requests.
            assert failed < 10
            assert await rig.metric("headroom_epp_endpoint_left_out_seconds", endpoint=broken.name) >= 2
        # A client that hangs up costs nobody an endpoint.
        left_out = await rig.metric("headroom_epp_endpoint_left_out_seconds")
        for _ in range(20):
            await rig.h2.send(PATH, body=STREAMED, headers={"x-act": "endless"}, abort_when=has_begun)
        await until(rig.is_idle)
        assert await rig.metric("headroom_epp_endpoint_left_out_seconds") <= left_out


def has_begun(answer: Answer) -> bool:
    return answer.status == 200
