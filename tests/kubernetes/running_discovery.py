"""Run a picker's discovery in a test, and wait for conditions."""

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


class RunningDiscovery:
    """A picker's discovery. `addresses`, `names` and `objectives` are the last that the API server sent."""

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

    async def wait_for(self, *addresses: str) -> None:
        """Wait until the endpoints are exactly those at `addresses`."""
        await eventually(lambda: self.addresses == set(addresses), lambda: f"endpoints are {self.addresses}")


@asynccontextmanager
async def running_discovery(
    client: Client, namespace: str, source: PoolName | TargetPods = POOL
) -> AsyncIterator[RunningDiscovery]:
    picker = RunningDiscovery(client, namespace, source)
    async with running(picker.discovery.run()):
        yield picker


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run `work` beside the test and cancel it at the end. An error in `work` fails the test."""
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
    """Wait until `condition` is true. Raise AssertionError with `describe()` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true: {describe()}"
        await asyncio.sleep(0.01)
