"""An open-loop load generator: requests go out at their time, whatever became of those before."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from simulator.workload import PlannedRequest

_CONTENT = b'"content":"'
_EMPTY_CONTENT = b'"content":""'


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client saw of one request. `sent_s` counts from the start; latencies are None where nothing came."""

    request: PlannedRequest
    sent_s: float
    status: int = 0
    error: str | None = None
    served_by: str | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float = 0.0
    output_tokens: int = 0

    @property
    def met(self) -> bool:
        """Whether the request was answered whole and within both objectives."""
        return (
            self.error is None
            and self.ttft_ms is not None
            and self.ttft_ms <= self.request.slo_ttft_ms
            and (self.tpot_ms or 0.0) <= self.request.slo_tpot_ms
        )


async def replay(
    url: str,
    planned: Sequence[PlannedRequest],
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    timeout_s: float = 300.0,
) -> list[Outcome]:
    """Sends every request, streamed, to `url`/v1/chat/completions; a failed one is an outcome with an error."""
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
    }
    all_headers = {
        "content-type": "application/json",
        "x-request-id": request.id,
        "x-slo-ttft-ms": str(request.slo_ttft_ms),
        "x-slo-tpot-ms": str(request.slo_tpot_ms),
        **headers,
    }
    sent = time.perf_counter()
    watch, status, served_by, error = _Watch(), 0, None, None
    try:
        async with session.post(
            f"{url}/v1/chat/completions", data=msgspec.json.encode(body), headers=all_headers
        ) as response:
            status, served_by = response.status, response.headers.get("x-inference-pod")
            if status != 200:
                error = f"status {status}: {(await response.text())[:200]}"
            else:
                async for chunk in response.content.iter_any():
                    watch.feed(chunk, time.perf_counter())
                if not watch.done:
                    error = "the stream ended early"
    except (aiohttp.ClientError, TimeoutError) as failure:
        error = str(failure) or type(failure).__name__
    return Outcome(
        request=request,
        sent_s=sent - start,
        status=status,
        error=error,
        served_by=served_by,
        ttft_ms=(watch.first_at - sent) * 1000 if watch.tokens else None,
        tpot_ms=(watch.last_at - watch.first_at) * 1000 / (watch.tokens - 1) if watch.tokens > 1 else None,
        e2e_ms=(time.perf_counter() - sent) * 1000,
        output_tokens=watch.tokens,
    )


class _Watch:
    """Counts the events that carry content, and notes when the first and the last came."""

    def __init__(self) -> None:
        self.tokens = 0
        self.first_at = self.last_at = 0.0
        self.done = False
        self._rest = b""

    def feed(self, chunk: bytes, now: float) -> None:
        whole, _, self._rest = (self._rest + chunk).rpartition(b"\n\n")
        tokens = whole.count(_CONTENT) - whole.count(_EMPTY_CONTENT)
        if tokens:
            self.first_at = self.first_at or now
            self.last_at = now
            self.tokens += tokens
        self.done = self.done or b"data: [DONE]" in whole
