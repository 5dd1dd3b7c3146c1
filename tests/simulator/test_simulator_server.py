import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from simulator.load import replay
from simulator.summary import summarise
from simulator.trace import TraceRequest
from simulator.workload import plan
from tests.live import live


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = Config(host="127.0.0.1", port=0, name="pod-a", model="m", hardware=PRESETS["fast"], speed_factor=20.0)
    with live(create_app(config)) as running:
        yield running


@pytest.fixture
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


def chat(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3, **fields}


async def gauges(client: aiohttp.ClientSession) -> dict[str, float]:
    async with client.get("/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return {sample.name: sample.value for family in families for sample in family.samples}


async def until(client: aiohttp.ClientSession, condition: Callable[[dict[str, float]], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition(await gauges(client)):
            await asyncio.sleep(0.02)


async def test_a_stream_has_the_shape_of_vllms(client: aiohttp.ClientSession) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    async with client.post("/v1/chat/completions", json=body, headers={"x-request-id": "r"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["x-request-id"], response.headers["x-inference-pod"]) == ("r", "pod-a")
        lines = [line for line in (await response.text()).split("\n\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [e["choices"][0]["delta"]["content"] for e in events[1:-1]] == [" token"] * 3
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", chat()), ("/v1/completions", {"model": "m", "prompt": "hi", "max_tokens": 3})],
)
async def test_an_answer_in_one_piece_carries_its_usage(
    client: aiohttp.ClientSession, path: str, body: dict[str, object]
) -> None:
    async with client.post(path, json=body) as response:
        answer = await response.json()
    choice = answer["choices"][0]
    assert choice.get("text", choice.get("message", {}).get("content")) == " token" * 3
    assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{", "truncated"),
        (json.dumps({"messages": [{"role": "user"}]}), "model"),
        (json.dumps(chat(messages=[])), "messages"),
        (json.dumps(chat(max_tokens=0)), "max_tokens"),
        (json.dumps(chat(max_tokens=500_000)), "KV cache"),
        (json.dumps(chat(max_tokens=40_000)), "maximum context length"),
    ],
)
async def test_a_bad_request_is_told_why(client: aiohttp.ClientSession, body: str, expected: str) -> None:
    async with client.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert expected in (await response.json())["error"]["message"]


async def test_a_client_that_leaves_frees_its_blocks(client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/chat/completions", json=chat(stream=True, max_tokens=20_000)) as response:
        await response.content.readany()
        await until(client, lambda values: values["vllm:num_requests_running"] == 1)
        assert (await gauges(client))["vllm:kv_cache_usage_perc"] > 0
        response.close()
    await until(client, lambda values: values["vllm:num_requests_running"] == 0)
    assert (await gauges(client))["vllm:kv_cache_usage_perc"] == 0


async def test_the_page_has_what_routers_look_for(client: aiohttp.ClientSession) -> None:
    names = set(await gauges(client))
    assert {
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:gpu_cache_usage_perc",
        "vllm:lora_requests_info",
        "vllm:cache_config_info",
    } <= names


async def test_a_replayed_plan_is_answered_and_summarised(url: str) -> None:
    planned = plan([TraceRequest(index * 0.05, 200, 10) for index in range(6)], seed=1)
    seen: list[int] = []
    outcomes = await replay(url, planned, model="m", on_outcome=lambda outcome: seen.append(outcome.request.index))
    assert sorted(seen) == list(range(6))
    assert {(o.status, o.error, o.output_tokens, o.served_by) for o in outcomes} == {(200, None, 10, "pod-a")}
    summary = summarise(outcomes, 1.0)
    assert (summary["requests"], summary["errors"], summary["slo_attainment"]) == (6, 0, 1.0)
    assert 0 < summary["ttft_ms"]["p50"] <= summary["ttft_ms"]["p99"]


async def test_a_server_that_is_away_is_an_error_of_the_request_alone() -> None:
    outcomes = await replay("http://127.0.0.1:1", plan([TraceRequest(0, 10, 2)], seed=1), model="m")
    assert outcomes[0].error
    assert not outcomes[0].met
