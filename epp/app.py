"""The HTTP app of the metrics port: /metrics, and the picker's endpoints and decisions under /debug."""

import asyncio
import cProfile
import io
import pstats
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.request.decisions import DecisionLog, explain
from epp.request.names import shorten
from epp.workers.siblings import Siblings

# Decisions in one answer.
_MAX_LIMIT = 10_000
# Decisions in one answer with all their candidates. The event loop serves no requests while it builds the answer.
_MAX_EXPLAINED = 100
_LONGEST_PROFILE_S = 60.0


def create_app(
    pool: Pool, metrics: Metrics, decisions: DecisionLog, siblings: Siblings | None = None, *, is_profiled: bool = False
) -> Starlette:
    """Return the app. With `siblings`, it answers for all workers together."""

    async def metrics_page(request: Request) -> Response:
        page = await metrics.page_in_turns()
        return Response(await siblings.metrics(page) if siblings else page, media_type=CONTENT_TYPE_LATEST)

    async def debug_decisions(request: Request) -> Response:
        """Return the newest decisions first.

        `?limit=` sets their number. `?candidates=false` leaves out each candidate's features. `?request_id=` leaves out
        all other requests.
        """
        text = request.query_params.get("limit", "20")
        if not text.isdigit() or not 1 <= int(text) <= _MAX_LIMIT:
            return _json({"error": f"limit: expected 1 to {_MAX_LIMIT}, got {text[:20]!r}"}, 400)
        limit = int(text)
        with_candidates = request.query_params.get("candidates", "true") != "false"
        if with_candidates and limit > _MAX_EXPLAINED:
            return _json({"error": f"limit: at most {_MAX_EXPLAINED}, or add candidates=false"}, 400)
        request_id = shorten(request.query_params.get("request_id", ""))
        found = [explain(record, with_candidates) for record in decisions.newest(limit, request_id)]
        if siblings:
            found = await siblings.decisions(found, request.url.query, limit)
        return _json({"decisions": found})

    async def debug_endpoints(request: Request) -> Response:
        endpoints = describe_endpoints(pool)
        return _json({"endpoints": endpoints, "in_flight": sum(endpoint["in_flight"] for endpoint in endpoints)})

    routes = [
        Route("/metrics", metrics_page),
        Route("/debug/decisions", debug_decisions),
        Route("/debug/endpoints", debug_endpoints),
    ]
    if is_profiled:
        routes.append(Route("/debug/pprof/profile", _profile))
    return Starlette(routes=routes)


def describe_endpoints(pool: Pool) -> list[dict[str, Any]]:
    """Return each endpoint of the pool with its labels, metrics, and load."""
    everyone = pool.everyone()
    return [
        {
            "name": endpoint.name,
            "address": endpoint.address,
            "labels": dict(endpoint.labels),
            "stale": bool(everyone.stale[i]),
            "metrics_age_s": _finite(everyone.metrics_age_s[i]),
            "waiting": float(everyone.waiting[i]),
            "running": float(everyone.running[i]),
            "kv_usage": float(everyone.kv_usage[i]),
            "cache": {**pool.cache_of(int(slot))._asdict(), "indexed_blocks": pool.prefix_index.capacity(int(slot))},
            "in_flight": int(everyone.in_flight[i]),
            "prefill_tokens_in_flight": int(everyone.prefill_tokens[i]),
            "decode_tokens_in_flight": int(everyone.decode_tokens[i]),
            "tightest_tpot_slo_ms": _finite(everyone.tightest_tpot_slo_ms[i]),
            "recent_prefill_ms_per_token": _finite(everyone.recent_prefill_ms_per_token[i]),
            "recent_tpot_ms": _finite(everyone.recent_tpot_ms[i]),
            "ms_since_token": _finite(everyone.ms_since_token[i]),
            "lora": {"active": sorted(everyone.adapters[i].active), "waiting": sorted(everyone.adapters[i].waiting)},
        }
        for i, (slot, endpoint) in enumerate(zip(everyone.slots, everyone.endpoints, strict=True))
    ]


def _finite(value: Any) -> float | None:
    """Return None for an unknown value, which the pool stores as NaN or infinity."""
    return float(value) if abs(float(value)) < float("inf") else None


async def _profile(request: Request) -> Response:
    """Profile the event loop for `?seconds=` (default 5), and list the functions by their own time."""
    text = request.query_params.get("seconds", "5")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= _LONGEST_PROFILE_S:
        return _json({"error": f"seconds: expected up to {_LONGEST_PROFILE_S:g}, got {text[:20]!r}"}, 400)
    profile = cProfile.Profile()
    try:
        profile.enable()
    except ValueError:
        return _json({"error": "another profile is being taken"}, 409)
    try:
        await asyncio.sleep(seconds)
    finally:
        profile.disable()
    page = io.StringIO()
    pstats.Stats(profile, stream=page).sort_stats("tottime").print_stats(60)
    return PlainTextResponse(page.getvalue())


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
