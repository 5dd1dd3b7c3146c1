"""A well-behaved client beside an attacker: a gateway that sends requests at a fixed rate."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lab.bench.epp.gateway import METHOD, Shape, Tally, Timing, script
from lab.bench.epp.http2 import CallFailedError, Connection

PER_S = 20.0
# Longest wait for the end of a request. A gateway gives up long before.
_PATIENCE_S = 10.0


@dataclass
class NeighbourReport:
    """What became of a neighbour's requests. `took_ms` has those that were answered."""

    sent: int = 0
    took_ms: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.took_ms)

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.took_ms, 99)) if self.took_ms else float("nan")


async def ask(address: str, seconds: float, watch: Callable[[], None]) -> NeighbourReport:
    """Send requests for so many seconds, on one connection, and call `watch` at each. Wait for all answers."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    served = NeighbourReport()
    _, connection = await loop.create_connection(lambda: Connection(address, METHOD), host, int(port))
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as requests:
        for number in range(int(seconds * PER_S)):
            await asyncio.sleep(began_s + number / PER_S - time.perf_counter())
            requests.create_task(_request(connection, number, served))
            watch()
    connection.close()
    return served


async def _request(connection: Connection, number: int, served: NeighbourReport) -> None:
    served.sent += 1
    timing = Timing(Tally())
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await connection.call(script(Shape(), str(uuid.uuid4()), number, timing))
    except (CallFailedError, TimeoutError) as error:
        served.reasons.append(str(error) or f"no end within {_PATIENCE_S:g} s")
    else:
        served.took_ms.append((time.perf_counter() - timing.began_s) * 1000)
