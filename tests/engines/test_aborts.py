"""A client that goes away at any stage of an answer leaves nothing behind, in the picker or in vLLM."""

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from lab.engines.vllm import MODEL
from tests.engines.conftest import TIMEOUT_S, Loop
from tests.envoy.rig import get, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(TIMEOUT_S)]

LONG: dict[str, Any] = {
    "model": MODEL,
    "prompt": "All work and no play. " * 1000,
    "ignore_eos": True,
    "max_tokens": 2000,
}
_LOAD = re.compile(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)", re.MULTILINE)


@pytest.mark.parametrize("stage", ["before the head", "at the head", "at the first token", "amid the tokens"])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_an_abort_leaves_nothing(loop: Loop, stage: str, is_stream: bool) -> None:
    if not is_stream and stage != "before the head":
        pytest.skip("a whole answer comes at once")
    await loop.pool("tiny")
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(f"{loop.url}/v1/completions", json={**LONG, "stream": is_stream}))
        await until(lambda: is_busy(loop))
        if stage == "before the head":
            asking.cancel()
            for answer in await asyncio.gather(asking, return_exceptions=True):
                # On a busy machine, the head may have come.
                if isinstance(answer, aiohttp.ClientResponse):
                    answer.close()
        else:
            response = await asking
            for _ in range({"at the head": 0, "at the first token": 1, "amid the tokens": 20}[stage]):
                assert await response.content.readuntil(b"\n\n")
            response.close()
    await until(lambda: is_quiet(loop))
    await until(loop.is_idle)


async def server_load(loop: Loop) -> float:
    return sum(map(float, _LOAD.findall(await get(f"{loop.server('tiny')}/metrics"))))


async def is_busy(loop: Loop) -> bool:
    return await server_load(loop) > 0


async def is_quiet(loop: Loop) -> bool:
    return await server_load(loop) == 0
