"""Rows whose latencies follow a known law, for tests that fit models."""

import numpy as np

from model_store import ROW_FEATURES, ROW_NAMES
from trainer.window import Rows, TargetData
from trainer.wire import Matrix

INPUT, PREFIX, WAITING = (
    ROW_NAMES.index(name) for name in ("input_token_length", "prefix_cache_score", "num_request_waiting")
)


def make_rows(count: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, len(ROW_NAMES)), dtype=np.float32)
    for index, feature in enumerate(ROW_FEATURES):
        rows[:, index] = rng.random(count) if feature.maximum else rng.integers(0, 1000, count)
    for name in ("recent_tpot_ms", "recent_prefill_ms_per_token", "ms_since_token"):
        rows[rng.random(count) < 0.3, ROW_NAMES.index(name)] = np.nan
    return rows


def law(rows: Matrix, factor: float = 1.0) -> Matrix:
    return np.asarray(factor * (20 + rows[:, INPUT] * (1 - rows[:, PREFIX])), dtype=np.float32)


def noisy(latency: Matrix, seed: int = 0) -> Matrix:
    noise = np.random.default_rng(seed).normal(0, 0.1, len(latency))
    return np.asarray(latency * np.exp(noise), dtype=np.float32)


def rows_of(x: Matrix, y: Matrix, first: int = 0) -> Rows:
    return Rows(x, y, first + np.arange(len(y)))


def target(factor: float = 1.0, count: int = 3000, holdout: int = 400) -> TargetData:
    x = make_rows(count + holdout)
    y = law(x, factor)
    return TargetData(rows_of(x[:count], y[:count]), rows_of(x[count:], y[count:], first=count))
