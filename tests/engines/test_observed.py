"""The picker measures real answers as their client does, and counts their tokens as the server does."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from lab.engines.vllm import MODEL
from tests.engines.cases import END_OF_THOUGHT, LIKELY, TOOL
from tests.engines.conftest import TIMEOUT_S, Loop
from tests.envoy.rig import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]

HELLO = [{"role": "user", "content": "Tell me of the sea."}]
LENGTH = {"max_tokens": 48, "ignore_eos": True, "seed": 1}
ENDING = {"logit_bias": {str(END_OF_THOUGHT): LIKELY}}
USAGE = {"stream_options": {"include_usage": True}}
STREAMS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("tiny", "/v1/chat/completions", {"messages": HELLO, **LENGTH, **USAGE}),
    "chat-continuous-usage": (
        "tiny",
        "/v1/chat/completions",
        {"messages": HELLO, **LENGTH, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
    "completion": ("tiny", "/v1/completions", {"prompt": "Tell me of the sea.", **LENGTH, **USAGE}),
    "adapter": ("adapters", "/v1/chat/completions", {"model": "adapter-1", "messages": HELLO, **LENGTH, **USAGE}),
    "reasoning": ("reasoning", "/v1/chat/completions", {"messages": HELLO, **LENGTH, **USAGE}),
    "reasoning-and-text": ("reasoning", "/v1/chat/completions", {"messages": HELLO, **LENGTH, **USAGE, **ENDING}),
    "tools": (
        "reasoning",
        "/v1/chat/completions",
        {"messages": HELLO, "seed": 1, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required", **USAGE, **ENDING},
    ),
    "response": (
        "tiny",
        "/v1/responses",
        {"input": "Tell me of the sea.", "max_output_tokens": 48, "temperature": 0, "store": False},
    ),
}


@dataclass
class Seen:
    """A stream as its client saw it: ms from the request to the first token and to the end, and the server's usage."""

    first_token_ms: float
    end_ms: float
    output_tokens: int


@pytest.mark.parametrize("name", STREAMS)
async def test_tokens_and_times_are_those_of_the_client(loop: Loop, name: str) -> None:
    kind, path, body = STREAMS[name]
    await loop.pool(kind)
    request_id = str(uuid.uuid4())
    seen = await watch(loop.url + path, {"model": MODEL, "stream": True, **body}, request_id)
    outcome = (await loop.decision(request_id))["outcome"]
    assert outcome["output_tokens"] == seen.output_tokens > 1
    # Each event passes the picker before its client gets it.
    assert 0 < outcome["ttft_ms"] <= seen.first_token_ms
    span_ms = outcome["tpot_ms"] * (seen.output_tokens - 1)
    assert 0 < span_ms <= seen.end_ms - outcome["ttft_ms"]
    # Between the first token and the last, nearly all of the answer passes.
    assert span_ms > 0.5 * (seen.end_ms - seen.first_token_ms)


async def watch(url: str, body: Mapping[str, Any], request_id: str) -> Seen:
    """Send a request; return when its tokens came, and how many the server says that they were."""
    began = time.monotonic()
    first: float | None = None
    usage: dict[str, int] = {}
    async with aiohttp.request("POST", url, json=body, headers={"x-request-id": request_id}) as response:
        assert response.status == 200
        async for line in events(response):
            first = first or (time.monotonic() if is_token(line) else None)
            usage = line.get("usage") or (line.get("response") or {}).get("usage") or usage
    assert first
    tokens = usage.get("completion_tokens") or usage["output_tokens"]
    return Seen((first - began) * 1000, (time.monotonic() - began) * 1000, tokens)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def is_token(event: Mapping[str, Any]) -> bool:
    if event.get("type"):
        return str(event["type"]).endswith(".delta")
    choices = event.get("choices") or []
    return any(choice.get("text") is not None or "role" not in choice.get("delta", {"role": 0}) for choice in choices)


async def test_the_trainer_gets_a_row_of_each_stream(loop: Loop) -> None:
    await loop.pool("tiny", "small")
    before = await rows(loop)
    for _ in range(4):
        await watch(
            f"{loop.url}/v1/completions",
            {"model": MODEL, "prompt": "Tell me of the sea.", "stream": True, **LENGTH, **USAGE},
            str(uuid.uuid4()),
        )

    async def all_rows_are_in() -> bool:
        return await rows(loop) >= before + 4

    await until(all_rows_are_in)


async def rows(loop: Loop) -> int:
    async with aiohttp.request("GET", f"{loop.config.trainer_url}/data/status") as response:
        status = await response.json()
    return int(status["training_data"]["total_samples"] + status["test_data"]["total_samples"])
