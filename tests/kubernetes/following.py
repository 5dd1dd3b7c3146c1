"""A picker's discovery at work, and what a test asks of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from epp.kubernetes.client import Client
from epp.kubernetes.discovery import Discovery
from epp.kubernetes.objects import POOL_GROUP
from epp.kubernetes.targets import PoolName, TargetPods
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from tests.live import PATIENCE_S

POOL = PoolName("pool", POOL_GROUP)


class Following:
    """`addresses` and `objectives` are what the picker knows now."""

    def __init__(self, client: Client, namespace: str, source: PoolName | TargetPods) -> None:
        self.pool = Pool(PrefixIndex(100), 60.0)
        self.discovery = Discovery(client, source, namespace, self.pool)
        self.objectives = self.discovery.objectives

    @property
    def addresses(self) -> set[str]:
        return {endpoint.address for endpoint in self.pool.endpoints.values()}

    @property
    def names(self) -> set[str]:
        return {endpoint.name for endpoint in self.pool.endpoints.values()}

    async def becomes(self, *addresses: str) -> None:
        await eventually(lambda: self.addresses == set(addresses), lambda: f"endpoints are {self.addresses}")


@asynccontextmanager
async def following(client: Client, namespace: str, source: PoolName | TargetPods = POOL) -> AsyncIterator[Following]:
    picker = Following(client, namespace, source)
    async with running(picker.discovery.run()):
        yield picker


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Ends it when the test is through; whatever ended it before fails the test."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(
    condition: Callable[[], bool], describe: Callable[[], str] = lambda: "", timeout_s: float = PATIENCE_S
) -> None:
    """Waits for a condition; AssertionError when it doesn't come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {describe()}"
        await asyncio.sleep(0.01)
