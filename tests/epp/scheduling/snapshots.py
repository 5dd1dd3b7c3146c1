"""Snapshots for tests of scheduling."""

import numpy as np

from epp.scheduling.snapshot import NO_ADAPTERS, Adapters, Endpoint, Floats, Predictions, Snapshot, TpotSlos

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
    so_far: tuple[float, float] = (0.0, 0.0),
    prefill_ms_per_token: Column = None,
    unloaded_tpot_ms: Column = None,
    tpot_bias: Column = None,
    recent_tpot_ms: Column = None,
    ms_since_token: Column = None,
    predicted: list[tuple[float, float]] | None = None,
    medians: list[tuple[float, float]] | None = None,
) -> Snapshot:
    """Build a snapshot with the columns that matter to a test. The other columns are those of an idle pool.

    `tpot_slos` counts requests in flight by objective, for each candidate; `so_far` is what all of them have, and since
    when: tokens, and ms.
    """
    predictions = None
    if predicted is not None:
        ttft, tpot = np.array(predicted, dtype=float).T
        ttft_median, tpot_median = (None, None) if medians is None else np.array(medians, dtype=float).T
        predictions = Predictions(ttft, tpot, 1, "test", ttft_median, tpot_median)
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
        recent_tpot_ms=_column(size, recent_tpot_ms, np.nan),
        ms_since_token=_column(size, ms_since_token, np.nan),
        prefix_score=_column(size, prefix_score),
        role=_column(size, None, np.nan),
        tpot_slos=_tpot_slos(size, tpot_slos or [], so_far),
        prefill_ms_per_token=_column(size, prefill_ms_per_token, np.nan),
        unloaded_tpot_ms=_column(size, unloaded_tpot_ms, np.nan),
        tpot_bias=_column(size, tpot_bias, 1.0),
        slowdown=_column(size, None, 1.0),
        endpoints=tuple(Endpoint(f"pod-{i}", f"10.0.0.{i}:8000", labels[i] if labels else {}) for i in range(size)),
        adapters=tuple(adapters) if adapters else (NO_ADAPTERS,) * size,
        predictions=predictions,
    )


def _tpot_slos(size: int, in_flight: list[dict[float, int]], so_far: tuple[float, float]) -> TpotSlos:
    slos_ms = sorted({slo_ms for counts in in_flight for slo_ms in counts})
    requests = np.zeros((size, len(slos_ms)))
    for index, counts in enumerate(in_flight):
        requests[index] = [counts.get(slo_ms, 0) for slo_ms in slos_ms]
    asked = np.where(requests > 0, slos_ms, 0.0)
    return TpotSlos(requests, asked, *(np.full(requests.shape, value) for value in so_far))


def _column(size: int, values: Column, default: float = 0.0) -> Floats:
    return np.full(size, default) if values is None else np.array(values, dtype=float)
