"""The picker reads from a real vLLM's metrics what it decides by."""

import uuid

import aiohttp
import pytest

from lab.engines.vllm import ADAPTERS, MODEL
from tests.engines.conftest import TIMEOUT_S, Loop

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]


async def test_every_value_of_the_page_is_found(loop: Loop) -> None:
    await loop.pool("tiny", "small", "reasoning", "adapters")
    log = loop.supervisor.log("epp").read_text()
    assert "has no vllm:" not in log
    assert "is ignored" not in log


async def test_adapters_are_requested_where_they_are_loaded(loop: Loop) -> None:
    await loop.pool("adapters")
    for name in (*ADAPTERS, MODEL):
        request_id = str(uuid.uuid4())
        body = {"model": name, "prompt": "Tell me of the sea.", "max_tokens": 2}
        headers = {"x-request-id": request_id}
        async with aiohttp.request("POST", f"{loop.url}/v1/completions", json=body, headers=headers) as response:
            assert (await response.json())["model"] == name
        assert (await loop.decision(request_id))["model"] == name


@pytest.mark.parametrize("path", ["/health", "/version", "/ping", "/metrics"])
async def test_other_paths_reach_the_server(loop: Loop, path: str) -> None:
    await loop.pool("tiny")
    answers = []
    for url in (loop.url, loop.server("tiny")):
        async with aiohttp.request("GET", url + path) as response:
            # The page of metrics differs from one moment to the next.
            text = "" if path == "/metrics" else await response.text()
            answers.append((response.status, response.headers.get("content-type"), text))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
