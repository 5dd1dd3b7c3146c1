"""The loop with a real Envoy. Each part is a process of its own. Only the model servers' clock runs faster."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from headroom.processes.supervisor import Supervisor
from lab.evaluation.policies.configurations import CLOSED_FORMULA
from lab.loop.policies import ENVOY_POLICIES
from lab.loop.stack import MODEL, StackConfig, parts, unused_ports
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.trace import TraceRequest
from simulator.workload import plan
from tests.live import PATIENCE_S

pytestmark = pytest.mark.slow

# In prompts and as a key: nothing may keep it.
SECRET = "tell-nobody-4711"
SLO = {"x-prediction-based-scheduling": "true"}


def configure(folder: Path, **settings: Any) -> StackConfig:
    return StackConfig(
        folder=folder, hardware=["fast", "fast", "slow"], ports=unused_ports(3), speed_factor=10.0, **settings
    )


@asynccontextmanager
async def running(config: StackConfig, *, without: tuple[str, ...] = ()) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(config.folder, lambda name: None)
    try:
        wanted = [part for part in parts(config) if not part.name.startswith(without or ("-",))]
        await supervisor.start(wanted, lambda name: None)
        yield supervisor
    finally:
        await supervisor.stop()


def load(count: int, salt: str, rate: float = 40.0) -> Any:
    return plan([TraceRequest(i / rate, 200 + 37 * (i % 20), 20) for i in range(count)], seed=1, salt=salt)


async def send(config: StackConfig, count: int, salt: str, headers: dict[str, str] | None = None) -> list[Outcome]:
    return await replay(config.gateway_url, load(count, salt), model=MODEL, headers=headers or {})


async def get(url: str) -> Any:
    async with aiohttp.request("GET", url) as response:
        return json.loads(await response.text())


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.05)


async def in_flight(config: StackConfig) -> int:
    return int((await get(f"{config.picker_url}/debug/endpoints"))["in_flight"])


async def all_serve(config: StackConfig, urls: list[str], at_least: int = 1) -> bool:
    statuses = [await get(f"{url}/status") for url in urls]
    return all((status["generation"] or 0) >= at_least for status in statuses)


async def predicts(config: StackConfig) -> bool:
    """Send one request; return whether a prediction server predicted it."""
    await send(config, 1, "probe", SLO)
    newest = (await get(f"{config.picker_url}/debug/decisions?limit=1"))["decisions"][0]
    return bool(newest["prediction"] and newest["prediction"]["source"] == "remote")


async def most_are_predicted(config: StackConfig) -> bool:
    """Send requests; return whether prediction servers predicted nearly all of them."""
    outcomes = await send(config, 100, "slo", SLO)
    assert {outcome.error for outcome in outcomes} == {None}
    served_by = {outcome.request.id: outcome.served_by for outcome in outcomes}
    decisions = (await get(f"{config.picker_url}/debug/decisions?limit=100"))["decisions"]
    assert {d["request_id"]: d["endpoint"] for d in decisions} == served_by
    predicted = [d for d in decisions if d["profile"] == "slo" and d["prediction"]["source"] == "remote"]
    assert all(d["prediction"]["generation"] >= 1 and d["outcome"]["ttft_ms"] > 0 for d in predicted)
    assert len(decisions[0]["candidates"]) == 3
    return len(predicted) > 80


async def send_secrets(config: StackConfig) -> None:
    """Send a key and a marked prompt: whole, as a stream, in bodies that are refused, and in one that is cut."""
    url = f"{config.gateway_url}/v1/chat/completions"
    headers = {**SLO, "authorization": f"Bearer {SECRET}", "content-type": "application/json"}
    chat: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 5}
    bodies = [chat, {**chat, "stream": True}, {**chat, "model": 7}, {**chat, "max_tokens": SECRET}]
    async with aiohttp.ClientSession(headers=headers) as session:
        for data in [*(json.dumps(body) for body in bodies), f'{{"prompt": "{SECRET}']:
            async with session.post(url, data=data) as response:
                await response.read()


async def places_with_secrets(config: StackConfig) -> list[str]:
    """Return the loop's files and pages (logs, journal, models, metrics, decisions) that contain a prompt or a key."""
    files = [file for file in config.folder.rglob("*") if file.is_file()]
    found = [str(file) for file in files if SECRET.encode() in file.read_bytes()]
    urls = [f"{base}/metrics" for base in (config.picker_url, config.trainer_url, config.predictor_urls[0])]
    urls += [f"{config.picker_url}/debug/{page}" for page in ("decisions?limit=1000&candidates=false", "endpoints")]
    async with aiohttp.ClientSession() as session:
        for url in urls:
            async with session.get(url) as response:
                assert response.status == 200
                found += [url] if SECRET in await response.text() else []
    assert len(files) > 10
    return found


async def test_the_loop_learns_uses_its_models_and_survives_lost_parts(tmp_path: Path) -> None:
    config = configure(tmp_path, retraining_interval_s=0.5, model_sync_interval_s=0.2)
    async with running(config) as supervisor:
        await send_secrets(config)
        warm_up = await send(config, 150, "warm-up", SLO)
        assert {(outcome.error, outcome.status) for outcome in warm_up} == {(None, 200)}
        status = await get(f"{config.trainer_url}/data/status")
        assert status["training_data"]["total_samples"] + status["test_data"]["total_samples"] > 100
        await until(lambda: all_serve(config, config.predictor_urls))
        # The picker has paused prediction servers that had no model, and tries them again within 10 s.
        await until(lambda: predicts(config))

        supervisor.kill("predictor-2")
        # A picker on a busy machine pauses the other prediction servers, too, and tries them again.
        await until(lambda: most_are_predicted(config))

        assert await places_with_secrets(config) == []

        supervisor.kill("trainer")
        assert {outcome.error for outcome in await send(config, 30, "later", SLO)} == {None}
        assert await all_serve(config, [config.predictor_urls[0], config.predictor_urls[2]])
        await until(lambda: _idle(config))
        async with aiohttp.request("GET", f"{config.predictor_urls[0]}/v1/ttft") as response:
            assert (await response.json())["generation"] >= 1


@pytest.mark.parametrize("full_duplex", [False, True])
async def test_envoys_modes_carry_every_kind_of_request(tmp_path: Path, full_duplex: bool) -> None:
    config = configure(tmp_path, full_duplex=full_duplex)
    url = f"{config.gateway_url}/v1/chat/completions"
    chat: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi " * 30_000}], "max_tokens": 5}
    async with running(config, without=("trainer", "predictor")), aiohttp.ClientSession() as session:
        assert {outcome.error for outcome in await send(config, 30, "streamed")} == {None}
        async with session.post(url, json=chat) as response:
            assert (await response.json())["usage"]["completion_tokens"] == 5
        async with session.get(f"{config.gateway_url}/v1/models") as response:
            assert response.status == 200
        async with session.post(url, data=b"{") as response:
            assert (response.status, "BadRequest" in await response.text()) == (400, True)
        async with session.get(f"{config.gateway_url}/elsewhere") as response:
            assert response.status == 404
        async with session.post(url, json={**chat, "stream": True, "max_tokens": 5000}) as response:
            await response.content.readany()
            assert await in_flight(config) == 1
            response.close()
        await until(lambda: _idle(config))


async def _idle(config: StackConfig) -> bool:
    return await in_flight(config) == 0


async def test_envoys_own_policies_skip_the_picker(tmp_path: Path) -> None:
    config = configure(tmp_path)
    async with running(config, without=("trainer", "predictor")):
        for policy in ENVOY_POLICIES:
            outcomes = await send(config, 30, policy, {"x-headroom-policy": policy})
            counts = [sum(o.served_by == name for o in outcomes) for name in config.server_names]
            assert counts == [10, 10, 10] if policy == "round-robin" else all(counts)
        assert (await get(f"{config.picker_url}/debug/decisions"))["decisions"] == []


async def test_the_picker_finds_the_evaluations_scorer_as_a_plugin(tmp_path: Path) -> None:
    config = configure(tmp_path, picker_config=CLOSED_FORMULA)
    async with running(config, without=("trainer", "predictor")):
        assert {outcome.error for outcome in await send(config, 30, "formula")} == {None}
        decisions = (await get(f"{config.picker_url}/debug/decisions?limit=1"))["decisions"]
    scores = [candidate["scores"]["closed-formula-scorer"] for candidate in decisions[0]["candidates"]]
    assert all(0 < score < 1 for score in scores)
    assert len(set(scores)) > 1
