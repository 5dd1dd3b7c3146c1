"""Test what clients see if a picker is killed or hangs, in both body modes and both failure modes of Envoy."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.envoy.backends import ANSWER
from tests.envoy.clients import Answer, over_http1
from tests.envoy.load import PATH, load
from tests.envoy.rig import Rig, running, until

pytestmark = pytest.mark.slow

BODY = b'{"model": "m", "prompt": "hello"}'
TIMEOUTS = "http.inference.ext_proc.message_timeouts"
WORKERS = 4
KILLED, FROZEN = signal.SIGKILL, signal.SIGSTOP
# A stopped backend stays a candidate during the whole test, as it does for a short time in production.
FRESH = ("--metrics-staleness-threshold", "5m")
THREE_CHOICES = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: max-score-picker
  parameters: {maxNumOfEndpoints: 3}
"""


async def ask(rig: Rig, act: str = "json") -> Answer:
    return await rig.h2.send(PATH, body=BODY, headers={"x-act": act})


async def has_no_streams(rig: Rig) -> bool:
    return await rig.envoy_stat("cluster.picker.upstream_rq_active") == 0


async def recover(rig: Rig, number: signal.Signals) -> None:
    """Continue or restart the picker, and wait until it picks again."""
    if number == FROZEN:
        rig.signal_picker(signal.SIGCONT)
    else:
        await rig.picker.stop()
        await rig.start_picker()
    await until(rig.is_picker_healthy)
    before = await rig.metric("headroom_epp_decisions_total")

    async def picks() -> bool:
        return (await ask(rig)).status == 200 and await rig.metric("headroom_epp_decisions_total") > before

    await until(picks)


@pytest.mark.parametrize("number", [KILLED, FROZEN, signal.SIGTERM])
async def test_open_a_lost_picker_costs_no_request(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path, message_timeout_s=0.2) as rig:
        async with load(rig.url, workers=WORKERS) as outcomes:
            await outcomes.reach(50)
            rig.signal_picker(number)
            await until(rig.is_picker_given_up)
            await until(partial(has_no_streams, rig))
            timeouts, received = await rig.envoy_stat(TIMEOUTS), rig.received
            await outcomes.reach(outcomes.total + 100)
            assert await rig.envoy_stat(TIMEOUTS) == timeouts
            await recover(rig, number)
        assert outcomes.wrong == []
        # Each request runs into the timeout at most once, and none does after Envoy has given up the picker.
        assert timeouts <= received
        assert timeouts > 0 if number == FROZEN else timeouts == 0
        assert all(backend.received for backend in rig.backends)
        await until(rig.is_idle)


async def test_open_in_full_duplex_only_requests_held_by_the_picker_are_lost(tmp_path: Path) -> None:
    async with running(tmp_path, full_duplex=True) as rig:
        async with load(rig.url, workers=WORKERS) as outcomes:
            await outcomes.reach(50)
            rig.signal_picker(KILLED)
            await until(rig.is_picker_given_up)
            await outcomes.reach(outcomes.total + 200)
            await recover(rig, KILLED)
        # Each worker may lose the request in flight, and one more until Envoy has noticed.
        assert len(outcomes.wrong) <= 2 * WORKERS
        await until(rig.is_idle)


@pytest.mark.parametrize("full_duplex", [False, True])
async def test_a_terminated_picker_costs_no_request(tmp_path: Path, full_duplex: bool) -> None:
    """Envoy's health checks notice the end during the shutdown delay, while the picker still takes requests."""
    async with running(tmp_path, full_duplex=full_duplex, picker_flags=["--shutdown-delay", "5s"]) as rig:
        async with load(rig.url, workers=WORKERS) as outcomes:
            await outcomes.reach(50)
            rig.signal_picker(signal.SIGTERM)
            await until(rig.is_picker_given_up)
            await outcomes.reach(outcomes.total + 200)
            await recover(rig, signal.SIGTERM)
        assert outcomes.wrong == []
        await until(rig.is_idle)


@pytest.mark.parametrize("number", [KILLED, FROZEN])
@pytest.mark.parametrize("full_duplex", [False, True])
async def test_closed_no_request_passes_without_a_picker(
    tmp_path: Path, full_duplex: bool, number: signal.Signals
) -> None:
    async with running(tmp_path, full_duplex=full_duplex, failure_mode="closed", message_timeout_s=0.2) as rig:
        assert (await ask(rig)).body == ANSWER
        rig.signal_picker(number)
        answers = [await ask(rig) for _ in range(3)]
        await until(rig.is_picker_given_up)
        answers += [await ask(rig) for _ in range(3)]
        assert {(answer.status, answer.body) for answer in answers} == {(503, b"the endpoint picker does not answer\n")}
        assert rig.received == 1
        await recover(rig, number)
        await until(rig.is_idle)


async def test_a_client_cannot_choose_its_endpoint_without_a_picker(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.signal_picker(KILLED)
        await until(rig.is_picker_given_up)
        headers = {"x-gateway-destination-endpoint": rig.backends[0].address}
        for _ in range(30):
            await rig.h2.send(PATH, body=BODY, headers=headers)
        assert len(rig.backends[0].received) < 30
        received = [request for backend in rig.backends for request in backend.received]
        assert not any("x-gateway-destination-endpoint" in request.headers for request in received)


async def are_fresh(rig: Rig) -> bool:
    return not any(row["stale"] for row in (await rig.endpoints())["endpoints"])


async def test_the_next_choice_serves_and_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path, picker_flags=[*FRESH, "--config-text", THREE_CHOICES]) as rig:
        await until(partial(are_fresh, rig))
        alive = rig.backends[1]
        for backend in rig.backends:
            if backend is not alive:
                await backend.stop()

        async def counts_on_the_living() -> bool:
            counts = {row["address"]: row["in_flight"] for row in (await rig.endpoints())["endpoints"]}
            return counts == {backend.address: int(backend is alive) for backend in rig.backends}

        streaming = asyncio.create_task(over_http1(rig.url, PATH, body=BODY, headers={"x-act": "endless"}))
        await until(counts_on_the_living)
        chosen = alive.received[0].headers["x-gateway-destination-endpoint"].split(",")
        assert sorted(chosen) == sorted(backend.address for backend in rig.backends)
        streaming.cancel()
        await until(rig.is_idle)
