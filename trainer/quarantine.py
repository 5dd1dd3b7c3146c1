"""Rows that are set aside before they reach the window: impossible ones, and those of a source that sends too many."""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store import ROW_NAMES
from model_store.rows import LONGEST_MS, is_possible
from trainer.wire import Samples

QUARANTINE_REASONS = _IMPOSSIBLE, _OF_SOURCE = ("impossible", "source")
# Rows that are kept to look at, the newest ones.
_KEPT = 200
# The time over which a source's share is measured, in seconds.
_PERIOD_S = 60.0
# Rows that a source may always send in one period.
_FREE_ROWS = 1_000
# With fewer sources, nobody can tell which one sends too many.
_FEWEST_SOURCES = 3
# Sources that are counted by themselves. All others share one count.
_COUNTED_SOURCES = 1_000


class SourceShares:
    """Limits the share of rows that one source may have, once several sources send.

    `share` 1 sets no limit.
    """

    def __init__(self, share: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._monotonic = monotonic
        self._since_s = monotonic()
        self._rows: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def admit(self, source: str, rows: int) -> int:
        """Return how many of these rows are within the source's share, and count them."""
        self._begin_period_if_due()
        if source not in self._rows and len(self._rows) >= _COUNTED_SOURCES:
            source = ""
        admitted = min(rows, self._left(source))
        self._rows[source] += admitted
        return admitted

    def _left(self, source: str) -> int:
        sources = self._rows.keys() | self._before.keys() | {source}
        if self._share >= 1 or len(sources) < _FEWEST_SOURCES:
            return 1 << 62
        own = self._rows[source] + self._before[source]
        others = self._rows.total() + self._before.total() - own
        return max(0, max(_FREE_ROWS, round(others * self._share / (1 - self._share))) - own)

    def _begin_period_if_due(self) -> None:
        now_s = self._monotonic()
        if now_s - self._since_s >= _PERIOD_S:
            is_recent = now_s - self._since_s < 2 * _PERIOD_S
            self._before, self._rows, self._since_s = self._rows if is_recent else Counter(), Counter(), now_s


class Quarantine:
    """Sifts batches. `counts` has the rows set aside by reason: `impossible` or `source`."""

    def __init__(self, shares: SourceShares) -> None:
        self._shares = shares
        self._rows: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.counts = Counter[str]()

    def sift(self, samples: Samples, source: str) -> Samples:
        """Return the samples that may enter the window, and set the others aside."""
        possible = is_possible(samples.features)
        possible &= (samples.ttft_ms <= LONGEST_MS) & (samples.tpot_ms <= LONGEST_MS)
        if not possible.all():
            self._set_aside(samples.part(~possible), _IMPOSSIBLE, source)
            samples = samples.part(possible)
        if source:
            admitted = np.arange(len(samples)) < self._shares.admit(source, len(samples))
            if not admitted.all():
                self._set_aside(samples.part(~admitted), _OF_SOURCE, source)
                samples = samples.part(admitted)
        return samples

    def newest(self) -> list[dict[str, Any]]:
        """Return the newest rows that were set aside, newest first."""
        return list(reversed(self._rows))

    def _set_aside(self, samples: Samples, reason: str, source: str) -> None:
        self.counts[reason] += len(samples)
        newest = samples.part(np.arange(len(samples)) >= len(samples) - _KEPT)
        for features, ttft_ms, tpot_ms in zip(newest.features, newest.ttft_ms, newest.tpot_ms, strict=True):
            latencies = {"actual_ttft_ms": float(ttft_ms), "actual_tpot_ms": float(tpot_ms)}
            self._rows.append({"reason": reason, "source": source} | row_json(features) | latencies)


def row_json(features: NDArray[np.float32]) -> dict[str, float | None]:
    """Return a row of features by name; a missing value is None."""
    values = features.tolist()
    return {name: None if np.isnan(value) else value for name, value in zip(ROW_NAMES, values, strict=True)}
