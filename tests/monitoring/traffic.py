"""Requests through the loop while a test watches."""

import asyncio
import urllib.error
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

from lab.loop.stack import MODEL, StackConfig
from simulator.load.replay import replay
from simulator.trace import TraceRequest
from simulator.workload import plan
from tests.background import in_background
from tests.live import PATIENCE_S, call, until


@asynccontextmanager
async def traffic(config: StackConfig) -> AsyncIterator[None]:
    """Send 20 requests a second that ask for predictions, and a wrong one, until the end of the block."""

    async def second(number: int) -> None:
        planned = plan([TraceRequest(i / 20, 200 + 37 * i, 20) for i in range(20)], seed=1, salt=f"{number}")
        await replay(config.gateway_url, planned, model=MODEL, headers={"x-prediction-based-scheduling": "true"})
        await asyncio.to_thread(refused, config)

    async def send() -> None:
        # Each second's requests come, whatever becomes of those before.
        async with asyncio.TaskGroup() as group:
            for number in count():
                group.create_task(second(number))
                await asyncio.sleep(1)

    async with in_background(send()):
        yield


def refused(config: StackConfig) -> None:
    """Send a request that the picker refuses."""
    with suppress(urllib.error.URLError, OSError):
        call(f"{config.gateway_url}/v1/completions", b"{")


async def until_true(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition in a thread, so that the loop's traffic goes on."""
    await asyncio.to_thread(until, condition, patience_s)
