"""The training window: the newest samples of every situation, and a holdout that is never trained on.

A situation is a bucket of queue length, KV cache use and prefix score. Each bucket keeps its own newest rows, so a long
quiet night does not push out the samples of a busy hour.
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_store import ROW_NAMES, TARGETS
from trainer.wire import Matrix, Samples, join

QUEUE_EDGES = (0, 2, 5, 10)
QUEUE_BUCKETS, KV_BUCKETS, PREFIX_BUCKETS = len(QUEUE_EDGES) + 1, 20, 4
_WAITING = ROW_NAMES.index("num_request_waiting")
_KV = ROW_NAMES.index("kv_cache_percentage")
_PREFIX = ROW_NAMES.index("prefix_cache_score")
# Rows for which a new ring reserves memory.
_FIRST_CAPACITY = 64
# One in so many held-out rows is kept so many times as long, for the gate.
_ONE_OLDER_IN = 10
# The resolution of the held-out share.
_HASH_BUCKETS = 10_000
# A row of a window: raw features, latency in ms, and arrival number, which counts all rows of the target.
ROW = np.dtype([("x", np.float32, (len(ROW_NAMES),)), ("y", np.float32), ("arrival", np.int64)])
# Newer rows that a bucket needs before its rows of an earlier law are dropped.
_ENOUGH_TO_REPLACE = 50
# Bytes copied before the event loop gets its turn; 1 MiB takes a few tenths of a millisecond.
_COPIED_AT_ONCE_BYTES = 1 << 20

Structured = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Rows:
    """Features [rows, ROW_FEATURES], latencies [rows] in ms, and arrival numbers [rows]."""

    x: Matrix
    y: Matrix
    arrival: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def part(self, index: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "Rows":
        """Return the rows at a numpy index."""
        return Rows(self.x[index], self.y[index], self.arrival[index])


@dataclass(frozen=True, slots=True)
class TargetData:
    """A target's training rows, bucket by bucket, and held-out rows, in order of arrival.

    `older`: one in ten of the held-out rows of a time ten times as long.
    """

    train: Rows
    holdout: Rows
    older: Rows = field(default_factory=lambda: no_rows())

    def in_order(self) -> Rows:
        """Return training and held-out rows together, oldest first."""
        both = (self.train, self.holdout)
        x, y, arrival = (np.concatenate([getattr(rows, name) for rows in both]) for name in ("x", "y", "arrival"))
        return Rows(x, y, arrival).part(np.argsort(arrival))


def no_rows() -> Rows:
    return _rows(np.empty(0, dtype=ROW))


class Ring:
    """A ring buffer of the newest `capacity` rows. Its memory grows as it fills."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: Structured = np.empty(min(_FIRST_CAPACITY, capacity), dtype=ROW)
        self._next = 0
        self.size = 0

    @property
    def size_bytes(self) -> int:
        return self.size * ROW.itemsize

    def extend(self, rows: Structured) -> None:
        rows = rows[-self._capacity :]
        while self.size + len(rows) > len(self._rows) < self._capacity:
            self._grow()
        positions = (self._next + np.arange(len(rows))) % len(self._rows)
        self._rows[positions] = rows
        self._next = (self._next + len(rows)) % len(self._rows)
        self.size = min(self.size + len(rows), len(self._rows))

    def rows(self) -> Structured:
        """Return a copy of the rows, oldest first."""
        if self.size < len(self._rows):
            return self._rows[: self.size].copy()
        return np.concatenate([self._rows[self._next :], self._rows[: self._next]])

    def count_since(self, arrival: int) -> int:
        return int((self._rows["arrival"][: self.size] >= arrival).sum())

    def forget_before(self, arrival: int) -> None:
        kept = self.rows()
        kept = kept[kept["arrival"] >= arrival]
        self._rows = np.empty(max(min(_FIRST_CAPACITY, self._capacity), len(kept)), dtype=ROW)
        self._rows[: len(kept)] = kept
        self.size, self._next = len(kept), len(kept) % len(self._rows)

    def _grow(self) -> None:
        grown: Structured = np.empty(min(2 * len(self._rows), self._capacity), dtype=ROW)
        grown[: self.size] = self.rows()
        self._rows, self._next = grown, self.size % len(grown)


class TargetWindow:
    """One target's samples. A hash of a row's content decides if it is held out, so equal rows are on the same side."""

    def __init__(self, per_bucket: int, holdout_share: float, holdout_rows: int) -> None:
        self._per_bucket = per_bucket
        self._holdout_below = round(holdout_share * _HASH_BUCKETS)
        self._holdout_rows = holdout_rows
        self._arrivals = 0
        self.clear_training()
        self.clear_holdout()

    @property
    def train_count(self) -> int:
        return sum(ring.size for ring in self._buckets.values())

    @property
    def holdout_count(self) -> int:
        return self._holdout.size

    def bucket_counts(self) -> dict[tuple[int, int, int], int]:
        """Return the number of rows by (queue, KV, prefix) bucket, without empty buckets."""
        return {_bucket_of(number): ring.size for number, ring in sorted(self._buckets.items())}

    def add(self, features: Matrix, latency_ms: Matrix) -> None:
        held_out = row_hashes(np.column_stack((features, latency_ms))) % _HASH_BUCKETS < self._holdout_below
        rows: Structured = np.empty(len(latency_ms), dtype=ROW)
        rows["x"], rows["y"] = features, latency_ms
        rows["arrival"] = self._arrivals + np.arange(len(rows))
        self._arrivals += len(rows)
        self._holdout.extend(rows[held_out])
        self._older.extend(rows[held_out & (rows["arrival"] % _ONE_OLDER_IN == 0)])
        rows = rows[~held_out]
        numbers = bucket_numbers(rows["x"])
        for number in np.unique(numbers).tolist():
            self._buckets.setdefault(number, Ring(self._per_bucket)).extend(rows[numbers == number])

    def holdout(self) -> Rows:
        """Return a copy of the newest held-out rows, oldest first."""
        return _rows(self._holdout.rows())

    @property
    def arrivals(self) -> int:
        """The number of rows that ever arrived, which is the next row's arrival number."""
        return self._arrivals

    async def data(self, before: int | None = None) -> TargetData:
        """Return a copy of the rows whose arrival number is below `before`; default: all present rows.

        The copy is made in pieces, and other tasks on the event loop run between them.
        """
        before = self._arrivals if before is None else before
        pieces: list[Structured] = [np.empty(0, dtype=ROW)]
        copied_bytes = 0
        for ring in list(self._buckets.values()):
            pieces.append(ring.rows())
            copied_bytes += ring.size_bytes
            if copied_bytes > _COPIED_AT_ONCE_BYTES:
                copied_bytes = 0
                await asyncio.sleep(0)
        holdout, older = self._holdout.rows(), self._older.rows()
        train = await asyncio.to_thread(np.concatenate, pieces)
        return TargetData(*(_rows(part[part["arrival"] < before]) for part in (train, holdout, older)))

    def forget_replaced(self, arrival: int) -> None:
        """Drop rows that arrived before `arrival` from each bucket that has enough newer rows."""
        for ring in (self._holdout, self._older, *self._buckets.values()):
            if ring.count_since(arrival) >= _ENOUGH_TO_REPLACE:
                ring.forget_before(arrival)

    def clear_training(self) -> None:
        self._buckets: dict[int, Ring] = {}

    def clear_holdout(self) -> None:
        self._holdout = Ring(self._holdout_rows)
        self._older = Ring(self._holdout_rows)


class Window:
    """Both targets' samples. `version` rises with every sample, so a pass can tell if there are new ones."""

    def __init__(self, per_bucket: int, holdout_share: float, holdout_rows: int) -> None:
        self.targets = {name: TargetWindow(per_bucket, holdout_share, holdout_rows) for name in TARGETS}
        self.version = 0

    def add(self, samples: Samples) -> None:
        for name, latency_ms in (("ttft", samples.ttft_ms), ("tpot", samples.tpot_ms)):
            present = latency_ms > 0
            if present.any():
                self.targets[name].add(samples.features[present], latency_ms[present])
        self.version += len(samples)

    async def samples(self) -> Samples:
        """Return all samples in a form that `add` accepts. A row of one target has latency 0 for the other."""
        parts = []
        now = {name: target.arrivals for name, target in self.targets.items()}
        for name, target in self.targets.items():
            rows = (await target.data(now[name])).in_order()
            other = np.zeros_like(rows.y)
            parts.append(Samples(rows.x, *((rows.y, other) if name == "ttft" else (other, rows.y))))
        return join(parts)


def _rows(rows: Structured) -> Rows:
    return Rows(rows["x"], rows["y"], rows["arrival"])


def bucket_numbers(rows: Matrix) -> NDArray[np.int64]:
    """Return the bucket number of each row of `rows` [rows, ROW_FEATURES and more]."""
    queue = np.searchsorted(QUEUE_EDGES, rows[:, _WAITING], side="left")
    kv = np.clip(rows[:, _KV] * KV_BUCKETS, 0, KV_BUCKETS - 1).astype(np.int64)
    prefix = prefix_buckets(rows[:, _PREFIX]).astype(np.int64)
    numbers: NDArray[np.int64] = (queue * KV_BUCKETS + kv) * PREFIX_BUCKETS + prefix
    return numbers


def prefix_buckets(scores: Matrix) -> Matrix:
    """Return the quarter of each prefix score, 0 to 3, as float32, which is the models' input."""
    buckets = np.clip(np.floor(scores * np.float32(PREFIX_BUCKETS)), np.float32(0), np.float32(PREFIX_BUCKETS - 1))
    return np.asarray(buckets, dtype=np.float32)


def row_hashes(rows: Matrix) -> NDArray[np.uint64]:
    """Hash each row's bytes, equally in every process: FNV-1a over 32-bit words, then a final mix."""
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
