"""Snapshots for tests of scheduling."""

import numpy as np

from epp.pool.state import tpot_slo_place
from epp.scheduling.snapshot import NO_ADAPTERS, TPOT_SLOS_MS, Adapters, Endpoint, Floats, Predictions, Snapshot

Column = list[float] | None


def build_snapshot(
    size: int,
    *,
    waiting: Column = None,
    running: Column = None,
    kv_usage: Column = None,
    metrics_age_s: Column = None,
    in_flight: Column = None,
    prefill_tokens: Column = None,
    decode_tokens: Column = None,
    prefix_score: Column = None,
    tightest_tpot_slo_ms: Column = None,
    adapters: list[Adapters] | None = None,
    labels: list[dict[str, str]] | None = None,
    tpot_slos: list[dict[float, int]] | None = None,
    prefill_ms_per_token: Column = None,
    unloaded_tpot_ms: Column = None,
    predicted: list[tuple[float, float]] | None = None,
    medians: list[tuple[float, float]] | None = None,
) -> Snapshot:
    """A snapshot with the columns that matter to a test; the others are those of an idle pool."""
    predictions = None
    if predicted is not None:
        ttft, tpot = np.array(predicted, dtype=float).T
        ttft_median, tpot_median = (None, None) if medians is None else np.array(medians, dtype=float).T
        predictions = Predictions(ttft, tpot, 1, "test", ttft_median, tpot_median)
    slos = np.zeros((size, len(TPOT_SLOS_MS)))
    for index, counts in enumerate(tpot_slos or ()):
        for slo_ms, count in counts.items():
            slos[index, tpot_slo_place(slo_ms)] += count
    return Snapshot(
        slots=np.arange(size),
        waiting=_column(size, waiting),
        running=_column(size, running),
        kv_usage=_column(size, kv_usage),
        metrics_age_s=_column(size, metrics_age_s),
        stale=np.zeros(size, dtype=bool),
        in_flight=_column(size, in_flight),
        prefill_tokens=_column(size, prefill_tokens),
        decode_tokens=_column(size, decode_tokens),
        tightest_tpot_slo_ms=_column(size, tightest_tpot_slo_ms, np.inf),
        recent_prefill_ms_per_token=_column(size, None, np.nan),
        recent_tpot_ms=_column(size, None, np.nan),
        ms_since_token=_column(size, None, np.nan),
        prefix_score=_column(size, prefix_score),
        role=_column(size, None, np.nan),
        tpot_slos=slos,
        prefill_ms_per_token=_column(size, prefill_ms_per_token, np.nan),
        unloaded_tpot_ms=_column(size, unloaded_tpot_ms, np.nan),
        endpoints=tuple(Endpoint(f"pod-{i}", f"10.0.0.{i}:8000", labels[i] if labels else {}) for i in range(size)),
        adapters=tuple(adapters) if adapters else (NO_ADAPTERS,) * size,
        predictions=predictions,
    )


def _column(size: int, values: Column, default: float = 0.0) -> Floats:
    return np.full(size, default) if values is None else np.array(values, dtype=float)
