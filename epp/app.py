"""What the metrics port serves: /metrics, /debug/decisions and /debug/endpoints."""

from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from epp.decisions import DecisionLog, explain
from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.scheduling.request import Request as NoRequest

_MAX_LIMIT = 10_000


def create_app(pool: Pool, metrics: Metrics, decisions: DecisionLog) -> Starlette:
    async def metrics_page(request: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def debug_decisions(request: Request) -> Response:
        """The newest first; `?limit=` how many, `?candidates=false` without each candidate's features."""
        limit = request.query_params.get("limit", "20")
        if not limit.isdigit() or not 1 <= int(limit) <= _MAX_LIMIT:
            return _json({"error": f"limit: expected 1 to {_MAX_LIMIT}, got {limit[:20]!r}"}, 400)
        with_candidates = request.query_params.get("candidates", "true") != "false"
        return _json({"decisions": [explain(record, with_candidates) for record in decisions.newest(int(limit))]})

    async def debug_endpoints(request: Request) -> Response:
        return _json({"endpoints": describe_endpoints(pool), "in_flight": pool.in_flight_total})

    return Starlette(
        routes=[
            Route("/metrics", metrics_page),
            Route("/debug/decisions", debug_decisions),
            Route("/debug/endpoints", debug_endpoints),
        ]
    )


def describe_endpoints(pool: Pool) -> list[dict[str, Any]]:
    """Every endpoint that is a candidate now, with what is known of it."""
    snapshot = pool.snapshot(NoRequest("", ""))
    return [
        {
            "name": endpoint.name,
            "address": endpoint.address,
            "labels": dict(endpoint.labels),
            "stale": bool(snapshot.stale[i]),
            "waiting": float(snapshot.waiting[i]),
            "running": float(snapshot.running[i]),
            "kv_usage": float(snapshot.kv_usage[i]),
            "in_flight": int(snapshot.in_flight[i]),
            "prefill_tokens_in_flight": int(snapshot.prefill_tokens[i]),
            "decode_tokens_in_flight": int(snapshot.decode_tokens[i]),
            "recent_prefill_ms_per_token": float(snapshot.recent_prefill_ms_per_token[i]),
            "recent_tpot_ms": float(snapshot.recent_tpot_ms[i]),
        }
        for i, endpoint in enumerate(snapshot.endpoints)
    ]


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
