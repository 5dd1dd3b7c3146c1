"""An open-loop load client for Envoy: it sends requests at random times of a given rate. It is its own process."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import uvloop

from lab.bench.epp.gateway import request_of

_ROOT = Path(__file__).parents[3]
_WARM_UP_S = 0.5
_PATIENCE_S = 20.0
_PATH = "/v1/chat/completions"


class HttpPlan(msgspec.Struct, frozen=True):
    url: str
    headers: dict[str, str]
    per_s: float
    seconds: float


class HttpLoad(msgspec.Struct, frozen=True):
    """The result of a load. Times in ms are from a request's due time to the end of its answer.

    `sent` includes the requests of the warm-up.
    """

    took_ms: list[float]
    sent: int
    failed: int
    reason: str

    def percentile_ms(self, percentile: float) -> float:
        return float(np.percentile(self.took_ms, percentile))


def http_load(url: str, headers: dict[str, str], per_s: float, seconds: float) -> HttpLoad:
    """Run the client, and return its result. Raise RuntimeError if fewer than 99 of 100 requests succeeded."""
    plan = HttpPlan(url, headers, per_s, seconds)
    command = [sys.executable, "-m", __name__, msgspec.json.encode(plan).decode()]
    output = subprocess.run(command, cwd=_ROOT, capture_output=True, check=True).stdout
    found = msgspec.json.decode(output, type=HttpLoad)
    if found.failed > len(found.took_ms) / 100:
        raise RuntimeError(f"{found.failed} requests failed, {len(found.took_ms)} succeeded: {found.reason}")
    return found


async def _run(plan: HttpPlan) -> HttpLoad:
    random = np.random.default_rng(2)
    took_ms: list[float] = []
    reasons: list[str] = []
    warm_up_s = min(_WARM_UP_S, plan.seconds)
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        began_s = due_s = time.perf_counter()

        async def ask(index: int, due_s: float) -> None:
            _, body = request_of(slo=False, variant=index)
            reason = await _ask(session, plan, body)
            if reason:
                reasons.append(reason)
            elif due_s > began_s + warm_up_s:
                took_ms.append((time.perf_counter() - due_s) * 1000)

        async with asyncio.TaskGroup() as requests:
            index = 0
            while due_s < began_s + warm_up_s + plan.seconds:
                due_s, index = due_s + random.exponential(1 / plan.per_s), index + 1
                await asyncio.sleep(due_s - time.perf_counter())
                requests.create_task(ask(index, due_s))
    return HttpLoad(took_ms, index, len(reasons), reasons[0] if reasons else "")


async def _ask(session: aiohttp.ClientSession, plan: HttpPlan, body: bytes) -> str:
    """Send a request. Return why it failed, or an empty string."""
    headers = {"content-type": "application/json", **plan.headers}
    try:
        async with session.post(plan.url + _PATH, data=body, headers=headers) as response:
            answer = await response.read()
            return "" if response.status == 200 else f"status {response.status}: {answer[:200].decode()}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=HttpPlan)))))
