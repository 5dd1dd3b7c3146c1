"""A load client for ext_proc that behaves like a gateway, with a number of concurrent requests or a request rate.

It is a process of its own. Its CPU time is measured too, because the client must not be the bottleneck.
"""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from lab.bench.epp.gateway import METHOD, VARIANTS, Shape, Tally, Timing, script
from lab.bench.epp.http2 import CallFailedError, Connection
from lab.bench.epp.target import MeasuredPicker

_ROOT = Path(__file__).parents[3]
_WARM_UP_S = 0.5
_PATIENCE_S = 20.0


class LoadPlan(msgspec.Struct, frozen=True):
    """The load: `at_once` concurrent requests in a closed loop, or `per_s` requests per second at random times.

    A request that hasn't ended after `patience_s` is given up.
    """

    address: str
    shape: Shape
    seconds: float
    at_once: int = 1
    per_s: float = 0.0
    connections: int = 1
    patience_s: float = _PATIENCE_S


class LoadResult(msgspec.Struct, frozen=True):
    """The client's result. Times in ms are of successful requests; `reason` is that of the first failure."""

    seconds: float
    picked_ms: list[float]
    took_ms: list[float]
    chunks: int
    client_cpu_s: float
    failed: int
    reason: str


@dataclass(frozen=True)
class PickerMeasurement:
    """One measurement. `cpu_s` is the CPU time of all the picker's processes. `watched` is the growth of `watch()`."""

    plan: LoadPlan
    counted: LoadResult
    cpu_s: float
    watched: float

    @property
    def requests(self) -> float:
        """The number of requests. In full duplex, chunks count fractions of the requests in progress at both ends."""
        if self.plan.shape.full_duplex:
            return self.counted.chunks / self.plan.shape.tokens
        return len(self.counted.took_ms)

    @property
    def per_s(self) -> float:
        return self.requests / self.counted.seconds

    @property
    def client_cores(self) -> float:
        return self.counted.client_cpu_s / self.counted.seconds

    def picked_ms(self, percentile: float) -> float:
        return float(np.percentile(self.counted.picked_ms, percentile))

    def cpu_us_per_request(self, idle_cores: float) -> float:
        """Return the CPU time per request in µs, without the picker's idle CPU time, which is mostly scraping."""
        return (self.cpu_s - idle_cores * self.counted.seconds) * 1e6 / self.requests


def load(target: MeasuredPicker, plan: LoadPlan, watch: Callable[[], float] = lambda: 0.0) -> PickerMeasurement:
    """Run the client against the target, and call `watch` before and after.

    Raise RuntimeError if no request, or fewer than 99 of 100, succeeded.
    """
    measured = measure(target, plan, watch)
    counted = measured.counted
    well = len(counted.took_ms)
    if not well or counted.failed > well / 100:
        reason = counted.reason or "none ended in time"
        raise RuntimeError(f"{target.name}: {well} requests succeeded, {counted.failed} failed: {reason}")
    return measured


def measure(target: MeasuredPicker, plan: LoadPlan, watch: Callable[[], float] = lambda: 0.0) -> PickerMeasurement:
    """Do the same, however many requests fail."""
    command = [sys.executable, "-m", __name__, msgspec.json.encode(plan).decode()]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin
        assert client.stdout
        if client.stdout.readline() != "warm\n":
            raise RuntimeError(f"the load client did not start: run `{' '.join(command)}`")
        before, before_s = watch(), target.cpu_s
        client.stdin.write("go\n")
        client.stdin.flush()
        client.stdout.readline()
        spent_s, watched = target.cpu_s - before_s, watch() - before
        result = client.stdout.readline()
    if not result:
        raise RuntimeError(f"the load client ended early: run `{' '.join(command)}`")
    return PickerMeasurement(plan, msgspec.json.decode(result, type=LoadResult), spent_s, watched)


class _Client:
    """Sends requests on a few connections in turn, and records those that ended since the last `forget`."""

    def __init__(self, shape: Shape, connections: list[Connection], patience_s: float) -> None:
        self._shape = shape
        self._patience_s = patience_s
        self._connections = connections
        self._sent = 0
        self.tally = Tally()
        self.forget()

    def forget(self) -> None:
        self.picked_ms: list[float] = []
        self.took_ms: list[float] = []
        self.tally.chunks = 0
        self.failed = 0
        self.reason = ""

    @property
    def has_counted(self) -> bool:
        """True if a whole request or a failure was recorded."""
        return bool(self.failed or (self.took_ms and (self.tally.chunks or not self._shape.full_duplex)))

    async def play(self) -> None:
        """Send one request, and wait for its end."""
        timing, index = Timing(self.tally), self._sent
        self._sent += 1
        connection = self._connections[index % len(self._connections)]
        try:
            async with asyncio.timeout(self._patience_s):
                await connection.call(script(self._shape, str(uuid.uuid4()), index, timing))
        except (CallFailedError, TimeoutError) as error:
            self.failed += 1
            self.reason = self.reason or str(error) or f"no end within {self._patience_s:g} s"
            # Without a pause, a picker that refuses at once would be asked in a tight loop.
            await asyncio.sleep(0.01)
            return
        self.picked_ms.append((timing.picked_s - timing.began_s) * 1000)
        self.took_ms.append((time.perf_counter() - timing.began_s) * 1000)

    async def closed(self, at_once: int, stopped: asyncio.Event) -> None:
        """Keep `at_once` requests in flight until `stopped` is set."""

        async def repeat() -> None:
            while not stopped.is_set():
                await self.play()

        await asyncio.gather(*(repeat() for _ in range(at_once)))

    async def open(self, per_s: float, stopped: asyncio.Event) -> None:
        """Send `per_s` requests per second until `stopped` is set, at the same random times in each run."""
        random = np.random.default_rng(1)
        due_s = time.perf_counter()
        requests: set[asyncio.Task[None]] = set()
        while not stopped.is_set():
            due_s += random.exponential(1 / per_s)
            await asyncio.sleep(due_s - time.perf_counter())
            task = asyncio.create_task(self.play())
            requests.add(task)
            task.add_done_callback(requests.discard)
        await asyncio.gather(*requests)


async def _run(plan: LoadPlan) -> None:
    connections = await _connect(plan)
    # Build and cache all messages before the first one is sent.
    for variant in range(VARIANTS):
        next(script(plan.shape, "", variant, Timing(Tally())))
    client, stopped = _Client(plan.shape, connections, plan.patience_s), asyncio.Event()
    asking = client.open(plan.per_s, stopped) if plan.per_s else client.closed(plan.at_once, stopped)
    task = asyncio.create_task(asking)
    await asyncio.sleep(min(_WARM_UP_S, plan.seconds))
    _print_line("warm")
    await asyncio.to_thread(sys.stdin.readline)
    counted = await _count(client, plan.seconds)
    _print_line("done")
    stopped.set()
    await task
    for connection in connections:
        connection.close()
    _print_line(msgspec.json.encode(counted).decode())


async def _connect(plan: LoadPlan) -> list[Connection]:
    loop = asyncio.get_running_loop()
    host, _, port = plan.address.rpartition(":")
    pairs = [
        await loop.create_connection(lambda: Connection(plan.address, METHOD), host, int(port))
        for _ in range(plan.connections)
    ]
    return [connection for _, connection in pairs]


async def _count(client: _Client, seconds: float) -> LoadResult:
    """Count requests for `seconds`, and longer until one has ended, because a slow picker may need more time."""
    client.forget()
    began_s, cpu_before_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    while not client.has_counted and time.perf_counter() < began_s + _PATIENCE_S:
        await asyncio.sleep(seconds)
    return LoadResult(
        seconds=time.perf_counter() - began_s,
        picked_ms=list(client.picked_ms),
        took_ms=list(client.took_ms),
        chunks=client.tally.chunks,
        client_cpu_s=time.process_time() - cpu_before_s,
        failed=client.failed,
        reason=client.reason,
    )


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=LoadPlan)))
