"""Summary figures of a replay's outcomes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulator.outcome import Outcome

PERCENTILES = (50, 95, 99)
COLUMNS = ("requests", "errors", "SLO met", "goodput/s", "TTFT ms p50/p95/p99", "TPOT ms p50/p95/p99")


def summarise(outcomes: Sequence[Outcome], span_s: float) -> dict[str, Any]:
    """Return requests, errors, SLO attainment, goodput over `span_s`, and percentiles of both latencies in ms."""
    met = sum(outcome.met for outcome in outcomes)
    return {
        "requests": len(outcomes),
        "errors": sum(outcome.error is not None for outcome in outcomes),
        "slo_attainment": round(met / len(outcomes), 4) if outcomes else 0.0,
        "goodput_rps": round(met / span_s, 3) if span_s > 0 else 0.0,
        "ttft_ms": _percentiles([o.ttft_ms for o in outcomes if o.ttft_ms is not None]),
        "tpot_ms": _percentiles([o.tpot_ms for o in outcomes if o.tpot_ms is not None]),
    }


def format_cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of `summarise`'s figures in a table, one for each of COLUMNS."""
    return (
        str(figures["requests"]),
        str(figures["errors"]),
        f"{figures['slo_attainment']:.1%}",
        f"{figures['goodput_rps']:.2f}",
        _join(figures["ttft_ms"]),
        _join(figures["tpot_ms"]),
    )


def _join(percentiles: Mapping[str, float]) -> str:
    return "/".join(f"{percentiles[f'p{p}']:.0f}" for p in PERCENTILES) if percentiles else "-"


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES)
    return {f"p{percent}": round(float(value), 1) for percent, value in zip(PERCENTILES, found, strict=True)}
