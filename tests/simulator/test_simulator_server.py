import asyncio
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from simulator.app import MAX_BODY_BYTES, create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.live import PATIENCE_S, live


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


async def values(client: aiohttp.ClientSession) -> dict[str, float]:
    """Return the values on the metrics page by name, summed over labels."""
    async with client.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    found: dict[str, float] = defaultdict(float)
    for sample in (sample for family in families for sample in family.samples):
        found[sample.name] += sample.value
    return found


async def until(client: aiohttp.ClientSession, condition: Callable[[dict[str, float]], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition(await values(client)):
            await asyncio.sleep(0.02)


async def test_a_stream_has_the_format_of_vllm(client: aiohttp.ClientSession) -> None:
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
async def test_an_unstreamed_answer_carries_its_usage(
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
        (b'{"model": "m\xff"}', "not UTF-8"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (json.dumps({"model": "m", "messages": [{"role": "user", "content": 1}]}), "messages"),
        (json.dumps(chat(max_tokens=500_000)), "KV cache"),
        (json.dumps(chat(max_tokens=40_000)), "maximum context length"),
    ],
)
async def test_a_bad_request_is_refused_with_the_reason(
    client: aiohttp.ClientSession, body: str | bytes, expected: str
) -> None:
    async with client.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert expected in (await response.json())["error"]["message"]


async def test_the_server_lists_its_model_and_reports_health(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/models") as response:
        assert [card["id"] for card in (await response.json())["data"]] == ["m"]
    async with client.get("/health") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405)],
)
async def test_a_wrong_path_is_refused_in_the_apis_error_format(
    client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == status


async def test_a_body_over_the_limit_is_refused(client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/completions", data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1))) as response:
        assert response.status == 413
        assert "larger than" in (await response.json())["error"]["message"]


async def test_a_completion_streams_text(client: aiohttp.ClientSession) -> None:
    body = {"model": "m", "prompt": "hi", "max_tokens": 2, "stream": True}
    async with client.post("/v1/completions", json=body) as response:
        events = (await response.text()).split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:2]]
    assert [(c["object"], c["id"][:5], c["choices"][0]["text"]) for c in chunks] == [
        ("text_completion", "cmpl-", " token")
    ] * 2
    assert events[2:] == ["data: [DONE]", ""]


async def test_text_parts_are_joined_to_one_prompt(client: aiohttp.ClientSession) -> None:
    async def prompt_tokens(content: object) -> int:
        body = chat(messages=[{"role": "user", "content": content}])
        async with client.post("/v1/chat/completions", json=body) as response:
            answer = await response.json()
        return int(answer["usage"]["prompt_tokens"])

    parts = [{"type": "text", "text": "a" * 50}, {"type": "text", "text": "b" * 50}]
    assert await prompt_tokens(parts) == await prompt_tokens("a" * 50 + "b" * 50)


async def test_a_repeated_prompt_is_found_in_the_cache(client: aiohttp.ClientSession) -> None:
    body = {"model": "m", "prompt": "seen before " * 100, "max_tokens": 1}
    cached = []
    for _ in range(2):
        async with client.post("/v1/completions", json=body) as response:
            cached.append((await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 288]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_blocks(client: aiohttp.ClientSession, stream: bool) -> None:
    body = chat(stream=stream, max_tokens=20_000)
    request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
    await until(client, lambda found: found["vllm:num_requests_running"] == 1)
    assert (await values(client))["vllm:kv_cache_usage_perc"] > 0
    if stream:
        (await request).close()
    request.cancel()
    await until(client, lambda found: found["vllm:num_requests_running"] == 0)
    assert (await values(client))["vllm:kv_cache_usage_perc"] == 0


async def test_the_metrics_page_has_the_metrics_that_routers_scrape(client: aiohttp.ClientSession) -> None:
    assert {
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:gpu_cache_usage_perc",
        "vllm:lora_requests_info",
        "vllm:cache_config_info",
    } <= set(await values(client))


async def test_the_metrics_page_counts_tokens_and_requests(client: aiohttp.ClientSession) -> None:
    before = await values(client)
    async with client.post("/v1/completions", json={"model": "m", "prompt": "a" * 400, "max_tokens": 5}) as response:
        await response.read()
    after = await values(client)
    counted = {name: after[name] - before[name] for name in after if name.endswith(("_total", "_count"))}
    assert counted == {
        "vllm:prompt_tokens_total": 100,
        "vllm:generation_tokens_total": 5,
        "vllm:prefix_cache_queries_total": 100,
        "vllm:prefix_cache_hits_total": 0,
        "vllm:num_preemptions_total": 0,
        "vllm:request_success_total": 1,
        "vllm:time_to_first_token_seconds_count": 1,
        "vllm:time_per_output_token_seconds_count": 4,
    }


async def test_a_prompt_may_be_token_ids(client: aiohttp.ClientSession) -> None:
    body = {"model": "m", "prompt": list(range(300, 364)), "max_tokens": 1}
    for cached in (0, 48):
        async with client.post("/v1/completions", json=body) as response:
            usage = (await response.json())["usage"]
        assert usage["prompt_tokens"] == 64
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached
    async with client.post("/v1/completions", json={**body, "prompt": []}) as response:
        assert response.status == 400
