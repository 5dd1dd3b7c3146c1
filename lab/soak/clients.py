"""The clients of a soak: open-loop requests, some of which are aborted."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from lab.loop.stack import MODEL

_ABORTED_SHARE: Final = 0.1
_TIMEOUT_S: Final = 30.0
_BODY: Final = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "word " * 100}],
    "max_tokens": 16,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_HEADERS: Final = {"x-prediction-based-scheduling": "true", "x-slo-ttft-ms": "2000", "x-slo-tpot-ms": "100"}


@dataclass
class ClientReport:
    """What the clients saw. `took` has the time of each whole request: when it was sent, in s, and its ms."""

    sent: int = 0
    aborted: int = 0
    lost: list[str] = field(default_factory=list)
    took: list[tuple[float, float]] = field(default_factory=list)


async def send(url: str, per_s: float, seconds: float, seen: ClientReport) -> None:
    """Send requests at a fixed rate; abort a tenth of them at a random moment. Return when all have ended."""
    rng = random.Random(1)
    began_s = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0), headers=_HEADERS) as session,
        asyncio.TaskGroup() as requests,
    ):
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(began_s + number / per_s - time.perf_counter())
            abort_s = rng.uniform(0, 0.3) if rng.random() < _ABORTED_SHARE else None
            requests.create_task(_request(session, f"{url}/v1/chat/completions", abort_s, seen, began_s))


async def _request(
    session: aiohttp.ClientSession, url: str, abort_s: float | None, seen: ClientReport, began_s: float
) -> None:
    seen.sent += 1
    sent_s = time.perf_counter()
    try:
        async with asyncio.timeout(abort_s), session.post(url, json=_BODY) as response:
            text = await response.read()
            if response.status != 200 or b"[DONE]" not in text:
                seen.lost.append(f"status {response.status}: {text[-60:]!r}")
                return
    except TimeoutError:
        if abort_s is None:
            seen.lost.append("timeout")
        else:
            seen.aborted += 1
        return
    except aiohttp.ClientError as error:
        seen.lost.append(type(error).__name__)
        return
    seen.took.append((sent_s - began_s, (time.perf_counter() - sent_s) * 1000))
