"""The samples that models are fitted to: the newest of every kind of situation, and a holdout that is never trained on.

Situations are buckets of queue length, KV-cache use and prefix score, so that a long quiet night doesn't push out what
was learnt of a busy hour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store import ROW_FEATURES
from trainer.wire import Matrix, Samples

QUEUE_EDGES = (0, 2, 5, 10)
QUEUE_BUCKETS, KV_BUCKETS, PREFIX_BUCKETS = len(QUEUE_EDGES) + 1, 20, 4
_NAMES = [feature.name for feature in ROW_FEATURES]
_WAITING = _NAMES.index("num_request_waiting")
_KV = _NAMES.index("kv_cache_percentage")
_PREFIX = _NAMES.index("prefix_cache_score")
_FIRST_CAPACITY = 64
_HASH_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class TargetData:
    """A target's rows [rows, ROW_FEATURES] and its latencies [rows] in ms, to train on and held out."""

    train_x: Matrix
    train_y: Matrix
    holdout_x: Matrix
    holdout_y: Matrix


class Ring:
    """The newest `capacity` rows, in memory that grows as it fills."""

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity = capacity
        self._rows = np.empty((min(_FIRST_CAPACITY, capacity), width), dtype=np.float32)
        self._next = 0
        self.size = 0

    def extend(self, rows: Matrix) -> None:
        rows = rows[-self._capacity :]
        while self.size + len(rows) > len(self._rows) < self._capacity:
            self._grow()
        positions = (self._next + np.arange(len(rows))) % len(self._rows)
        self._rows[positions] = rows
        self._next = (self._next + len(rows)) % len(self._rows)
        self.size = min(self.size + len(rows), len(self._rows))

    def rows(self) -> Matrix:
        """A copy, oldest first."""
        if self.size < len(self._rows):
            return self._rows[: self.size].copy()
        return np.roll(self._rows, -self._next, axis=0)

    def _grow(self) -> None:
        grown = np.empty((min(2 * len(self._rows), self._capacity), self._rows.shape[1]), dtype=np.float32)
        grown[: self.size] = self.rows()
        self._rows, self._next = grown, self.size % len(grown)


class TargetWindow:
    """One target's samples. Rows are held out by a hash of their content, so a row is on the same side for ever."""

    def __init__(self, per_bucket: int, holdout_share: float, holdout_rows: int) -> None:
        self._per_bucket = per_bucket
        self._holdout_below = round(holdout_share * _HASH_BUCKETS)
        self._holdout_rows = holdout_rows
        self.clear_training()
        self.clear_holdout()

    @property
    def train_count(self) -> int:
        return sum(ring.size for ring in self._buckets.values())

    @property
    def holdout_count(self) -> int:
        return self._holdout.size

    def bucket_counts(self) -> dict[tuple[int, int, int], int]:
        """Rows by (queue, KV, prefix) bucket, without the empty ones."""
        return {_bucket_of(number): ring.size for number, ring in sorted(self._buckets.items())}

    def add(self, features: Matrix, latency_ms: Matrix) -> None:
        rows = np.column_stack((features, latency_ms)).astype(np.float32)
        held_out = row_hashes(rows) % _HASH_BUCKETS < self._holdout_below
        self._holdout.extend(rows[held_out])
        rows = rows[~held_out]
        numbers = bucket_numbers(rows)
        for number in np.unique(numbers).tolist():
            ring = self._buckets.setdefault(number, Ring(self._per_bucket, rows.shape[1]))
            ring.extend(rows[numbers == number])

    def data(self) -> TargetData:
        empty = np.empty((0, len(_NAMES) + 1), dtype=np.float32)
        train = np.concatenate([empty, *(ring.rows() for ring in self._buckets.values())])
        holdout = self._holdout.rows()
        return TargetData(train[:, :-1], train[:, -1], holdout[:, :-1], holdout[:, -1])

    def clear_training(self) -> None:
        self._buckets: dict[int, Ring] = {}

    def clear_holdout(self) -> None:
        self._holdout = Ring(self._holdout_rows, len(_NAMES) + 1)


class Window:
    """Both targets' samples. `version` rises with every sample, so that a pass can tell whether anything is new."""

    def __init__(self, per_bucket: int, holdout_share: float, holdout_rows: int) -> None:
        self.targets = {name: TargetWindow(per_bucket, holdout_share, holdout_rows) for name in ("ttft", "tpot")}
        self.version = 0

    def add(self, samples: Samples) -> None:
        for name, latency_ms in (("ttft", samples.ttft_ms), ("tpot", samples.tpot_ms)):
            carried = latency_ms > 0
            if carried.any():
                self.targets[name].add(samples.features[carried], latency_ms[carried])
        self.version += len(samples)

    def samples(self) -> Samples:
        """All that is held, as it could be added to an empty window; a row of one target carries 0 for the other."""
        parts = []
        for name, target in self.targets.items():
            data = target.data()
            features = np.concatenate([data.train_x, data.holdout_x])
            latency_ms = np.concatenate([data.train_y, data.holdout_y])
            other = np.zeros_like(latency_ms)
            parts.append(Samples(features, *((latency_ms, other) if name == "ttft" else (other, latency_ms))))
        features, ttft_ms, tpot_ms = (
            np.concatenate([getattr(part, column) for part in parts]) for column in ("features", "ttft_ms", "tpot_ms")
        )
        return Samples(features, ttft_ms, tpot_ms)


def bucket_numbers(rows: Matrix) -> NDArray[np.int64]:
    """Each row's bucket; `rows` are [rows, ROW_FEATURES and more]."""
    queue = np.searchsorted(QUEUE_EDGES, rows[:, _WAITING], side="left")
    kv = np.clip(rows[:, _KV] * KV_BUCKETS, 0, KV_BUCKETS - 1).astype(np.int64)
    prefix = np.clip(rows[:, _PREFIX] * PREFIX_BUCKETS, 0, PREFIX_BUCKETS - 1).astype(np.int64)
    numbers: NDArray[np.int64] = (queue * KV_BUCKETS + kv) * PREFIX_BUCKETS + prefix
    return numbers


def row_hashes(rows: Matrix) -> NDArray[np.uint64]:
    """A hash of each row's bytes, the same in every process: FNV-1a over 32-bit words, then a final mix."""
    words = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
    hashes = np.full(len(rows), 0xCBF29CE484222325, dtype=np.uint64)
    for column in words.T:
        hashes = (hashes ^ column) * np.uint64(0x100000001B3)
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    return hashes >> np.uint64(32)


def _bucket_of(number: int) -> tuple[int, int, int]:
    rest, prefix = divmod(number, PREFIX_BUCKETS)
    queue, kv = divmod(rest, KV_BUCKETS)
    return queue, kv, prefix
