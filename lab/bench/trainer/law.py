"""Rows of a known law with noise: TTFT grows with the tokens ahead, and TPOT with the batch."""

from typing import Any

import numpy as np

from model_store import ROW_FEATURES, ROW_NAMES
from trainer.window import Rows, TargetData

HOLDOUT_ROWS = 1_000


def make_entries(rows: int, seed: int, factor: float = 1.0) -> list[dict[str, Any]]:
    """Return rows as in the API's JSON. `factor` multiplies the latencies."""
    rng = np.random.default_rng(seed)
    tokens, waiting, running = rng.integers(1, 4000, rows), rng.poisson(2, rows), rng.integers(0, 32, rows)
    kv, prefix, ahead = rng.random(rows), rng.random(rows), rng.integers(0, 20_000, rows)
    ttft = factor * (30 + 0.25 * (tokens * (1 - prefix) + ahead)) * np.exp(rng.normal(0, 0.1, rows))
    tpot = factor * (20 + running + 10 * kv) * np.exp(rng.normal(0, 0.05, rows))
    columns = {
        "kv_cache_percentage": kv,
        "input_token_length": tokens,
        "num_request_waiting": waiting,
        "num_request_running": running,
        "num_tokens_generated": np.ones(rows, dtype=int),
        "prefix_cache_score": prefix,
        "prefill_tokens_in_flight": ahead,
        "actual_ttft_ms": ttft,
        "actual_tpot_ms": tpot,
    }
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


def make_target(rows: int, name: str, factor: float = 1.0) -> TargetData:
    entries = make_entries(rows + HOLDOUT_ROWS, 7, factor)
    defaults = {feature.name: feature.fill_value for feature in ROW_FEATURES}
    x = np.array([[entry.get(column, defaults[column]) for column in ROW_NAMES] for entry in entries], dtype=np.float32)
    y = np.array([entry[f"actual_{name}_ms"] for entry in entries], dtype=np.float32)
    every = Rows(x, y, np.arange(len(y)))
    return TargetData(every.part(slice(HOLDOUT_ROWS, None)), every.part(slice(0, HOLDOUT_ROWS)))
