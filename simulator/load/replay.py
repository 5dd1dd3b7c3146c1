"""An open-loop load generator: it sends each request at its time, and doesn't wait for earlier answers.

`python -m simulator.load URL` replays a trace against one server or gateway, and prints the latencies of its clients.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp
import msgspec

from simulator.outcome import Outcome
from simulator.token_watch import TokenWatch
from simulator.workload import PlannedRequest


async def replay(
    url: str,
    planned: Sequence[PlannedRequest],
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    timeout_s: float = 300.0,
) -> list[Outcome]:
    """Send every request to `url`/v1/chat/completions, and read its answer as a stream.

    Return the outcomes in the order of `planned`. A failed request is an outcome with an error.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=1 << 20) as session:
        start = time.perf_counter()

        async def one(request: PlannedRequest) -> Outcome:
            await asyncio.sleep(request.arrival_s - (time.perf_counter() - start))
            outcome = await _send(session, url, request, model, headers or {}, start)
            if on_outcome:
                on_outcome(outcome)
            return outcome

        return list(await asyncio.gather(*(one(request) for request in planned)))


async def _send(
    session: aiohttp.ClientSession,
    url: str,
    request: PlannedRequest,
    model: str,
    headers: Mapping[str, str],
    start: float,
) -> Outcome:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": request.prompt}],
        "max_tokens": request.output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        # A real model would stop at its own end; a replay needs the trace's lengths.
        "ignore_eos": True,
    }
    all_headers = {
        "content-type": "application/json",
        "x-request-id": request.id,
        "x-slo-ttft-ms": str(request.slo_ttft_ms),
        "x-slo-tpot-ms": str(request.slo_tpot_ms),
        **headers,
    }
    sent = time.perf_counter()
    watch, status, served_by, error = TokenWatch(), 0, None, None
    try:
        async with session.post(
            f"{url}/v1/chat/completions", data=msgspec.json.encode(body), headers=all_headers
        ) as response:
            status, served_by = response.status, response.headers.get("x-inference-pod")
            if status != 200:
                error = f"status {status}: {(await response.text(errors='replace'))[:200]}"
            else:
                async for chunk in response.content.iter_any():
                    watch.feed(chunk, time.perf_counter())
                error = watch.error or (None if watch.done else "the stream ended early")
    except (aiohttp.ClientError, TimeoutError, OSError) as failure:
        error = str(failure) or type(failure).__name__
    return Outcome(
        request=request,
        sent_s=sent - start,
        status=status,
        error=error,
        served_by=served_by,
        ttft_ms=(watch.first_at - sent) * 1000 if watch.first_at else None,
        tpot_ms=watch.tpot_ms,
        e2e_ms=(time.perf_counter() - sent) * 1000,
        output_tokens=watch.tokens,
    )
