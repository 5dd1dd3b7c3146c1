"""Look at model servers before anything is routed to them: what they run, what they tell, and what is amiss."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from epp.scraping.engines import ENGINES, EngineMetrics
from epp.scraping.metrics_page import Gauges
from headroom.servers.access import KEY_FLAG
from headroom.servers.failures import TIMEOUT, UnusableError, describe_failure

# An answer of a real server is far smaller.
_LARGEST = 16 << 20
# trtllm-serve has its page at the second one; its /metrics is JSON.
METRICS_PATHS = ("/metrics", "/prometheus/metrics")
_SWITCHES_ON_METRICS = {
    "vllm": "start vLLM without --disable-log-stats",
    "sglang": "start SGLang with --enable-metrics",
    "tensorrt_llm": "start trtllm-serve with return_perf_metrics: true in its configuration",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A server as it was found. `problem` is why it can't be used, or empty.

    `counts_tokens` says whether streams end with the server's count of tokens; None if that wasn't tried. `missing`
    are the things that its metrics page doesn't tell, and `advice` says what to change.
    """

    url: str
    problem: str = ""
    engine: str = ""
    version: str = ""
    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    counts_tokens: bool | None = None
    missing: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


async def look_at(session: aiohttp.ClientSession, url: str, *, asks: bool = True) -> Looked:
    """Look at the server at `url`. With `asks`, ask it for one token, to see whether its streams count tokens."""
    url = url.rstrip("/")
    refusals: list[str] = []
    try:
        cards = _cards(await _get(session, f"{url}/v1/models"))
        pages = await asyncio.gather(*(_page(session, url + path, refusals) for path in METRICS_PATHS))
        version = await _version(session, url)
        models = tuple(str(card["id"]) for card in cards if not card.get("parent"))
        counts = await _counts_tokens(session, url, models[0]) if asks and models else None
    except (aiohttp.ClientError, TimeoutError, UnusableError) as error:
        return Looked(url=url, problem=await describe_failure(error, url))
    engine, page = _engine_of(pages)
    maker = str(cards[0].get("owned_by", "")) if cards else ""
    missing = _missing(engine, page) if engine else ("queue", "running requests", "KV cache")
    return Looked(
        url=url,
        engine=engine.name if engine else "",
        version=version,
        models=models,
        adapters=tuple(str(card["id"]) for card in cards if card.get("parent")),
        counts_tokens=counts,
        missing=missing,
        advice=tuple(_advice(engine, maker, missing, counts, refusals)),
        problem="" if models else "it serves no model",
    )


class _RefusedError(UnusableError):
    """The server wants another API key, or names another address."""


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    # A redirect would take the API key to another server.
    async with session.get(url, timeout=TIMEOUT, allow_redirects=False) as response:
        # Read even the body of an error: aiohttp closes a connection with an unread body in the background, and with
        # TLS that may last longer than the command.
        body = await _bounded(response)
    if response.status in (401, 403):
        raise _RefusedError(f"{url} refuses the API key ({response.status}): {KEY_FLAG} names a file with one")
    if response.status in (301, 302, 307, 308):
        target = response.headers.get("location", "another address")
        raise _RefusedError(f"{url} redirects to {target}: name the server itself")
    if response.status != 200:
        raise UnusableError(f"{url} answered with status {response.status}: is this a server of OpenAI's API?")
    return body


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LARGEST:
            raise UnusableError(f"{response.url} answered with more than {_LARGEST >> 20} MiB")
    return bytes(body)


def _cards(body: bytes) -> list[dict[str, Any]]:
    try:
        cards = json.loads(body)["data"]
        return [card for card in cards if card["id"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableError("/v1/models is no list of models: is this a server of OpenAI's API?") from error


async def _page(session: aiohttp.ClientSession, url: str, refusals: list[str]) -> bytes:
    """Return a page of metrics; empty if there is none. Append to `refusals` why the server keeps it back."""
    try:
        return await _get(session, url)
    except _RefusedError as error:
        refusals.append(str(error))
        return b""
    except UnusableError:
        return b""


async def _version(session: aiohttp.ClientSession, url: str) -> str:
    """Return the version that the server tells; empty if it tells none."""
    try:
        return str(json.loads(await _get(session, f"{url}/version"))["version"])[:40]
    except (UnusableError, ValueError, KeyError, TypeError):
        return ""


async def _counts_tokens(session: aiohttp.ClientSession, url: str, model: str) -> bool | None:
    """Ask for one token. Return whether the stream ends with a count of tokens; None without an answer."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 1, "stream": True}
    body["stream_options"] = {"include_usage": True}
    completions = f"{url}/v1/completions"
    async with session.post(completions, json=body, timeout=TIMEOUT, allow_redirects=False) as response:
        answer = await _bounded(response)
    return b'"completion_tokens"' in answer if response.status == 200 else None


def _engine_of(pages: list[bytes]) -> tuple[EngineMetrics | None, bytes]:
    """Return the engine whose metrics stand on one of the pages, and that page."""
    for page in pages:
        for engine in ENGINES.values():
            if _has(engine.running, page) or _has(engine.waiting, page):
                return engine, page
    return None, b""


def _missing(engine: EngineMetrics, page: bytes) -> tuple[str, ...]:
    cache = engine.cache
    told: Mapping[str, bool] = {
        "queue": _has(engine.waiting, page),
        "running requests": _has(engine.running, page),
        "KV cache": _has(engine.kv_usage, page),
        "size of the cache": _has(cache.info, page) or _has(cache.blocks, page),
    }
    return tuple(name for name, is_told in told.items() if not is_told)


def _has(gauges: Gauges, page: bytes) -> bool:
    return any((at := gauge.find(page)) >= 0 and gauge.read(page, at) is not None for gauge in gauges)


def _advice(
    engine: EngineMetrics | None,
    maker: str,
    missing: tuple[str, ...],
    counts_tokens: bool | None,
    refusals: list[str],
) -> list[str]:
    """Return what to change in the server, in words."""
    found = []
    if engine is None and refusals:
        found.append(f"{refusals[0]}. Until then, only the picker's own requests are known")
    elif engine is None:
        switch = _SWITCHES_ON_METRICS.get(maker, "switch its Prometheus metrics on")
        found.append(f"no metrics of a known engine: {switch}. Until then, only the picker's own requests are known")
    elif missing:
        found.append(f"its metrics don't tell: {', '.join(missing)}. A newer version may")
    if counts_tokens is False:
        found.append("its streams don't count tokens (stream_options.include_usage): they are counted by their events")
    return found
