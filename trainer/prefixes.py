"""Statistics of prefix caching: the distribution of prefix scores, and the TTFT by score."""

from dataclasses import dataclass

import numpy as np

from model_store import ROW_NAMES
from trainer.window import Rows, prefix_buckets

RANGES = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")
_SCORE = ROW_NAMES.index("prefix_cache_score")


@dataclass(frozen=True, slots=True)
class PrefixRange:
    """The rows whose score is in one quarter. Latencies are in ms, and None if there are no rows."""

    count: int
    mean_ttft_ms: float | None
    median_ttft_ms: float | None


@dataclass(frozen=True, slots=True)
class PrefixSummary:
    rows: int
    scores: dict[str, float]
    ranges: tuple[PrefixRange, ...]


def summarise(rows: Rows) -> PrefixSummary | None:
    """Summarise TTFT's training rows; return None if there are none."""
    if not len(rows):
        return None
    scores = rows.x[:, _SCORE].astype(np.float64)
    buckets = prefix_buckets(rows.x[:, _SCORE])
    found = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
    return PrefixSummary(
        rows=len(rows),
        scores={name: float(value) for name, value in found.items()},
        ranges=tuple(_range(rows.y[buckets == number]) for number in range(len(RANGES))),
    )


def _range(latencies: np.ndarray[tuple[int], np.dtype[np.float32]]) -> PrefixRange:
    if not len(latencies):
        return PrefixRange(0, None, None)
    return PrefixRange(len(latencies), float(latencies.mean()), float(np.median(latencies)))
