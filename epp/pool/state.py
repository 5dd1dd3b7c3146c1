"""The numbers of the pool: arrays over endpoint slots, in memory that worker processes can share.

Every row has one writer. The scraping process writes the scraped rows. Each worker writes its own requests in flight
and observations. Readers combine the workers' rows.
"""

import math
import mmap

import numpy as np

from epp.scheduling.snapshot import TPOT_SLOS_MS, Floats, Indices

# Greatest number of endpoints in a pool.
CAPACITY = 8192

# By endpoint. The three rows `..._before` are the picker's own requests at the time of the scrape (REQUESTS).
SCRAPED = (
    "waiting",
    "running",
    "kv_usage",
    "updated_at_s",
    "dispatched_before",
    "in_flight_before",
    "prefilling_before",
    "cache_tokens",
    "cache_block_tokens",
)
ADDED = (
    "dispatched",
    "in_flight",
    "prefilling",
    "just_sent",
    "prefill_tokens",
    "decode_tokens",
    "decoding",
    "decoding_since_s",
    "observed",
)
# Requests sent since the endpoint joined, in flight, and in flight without a first token: the first rows of ADDED.
REQUESTS = ADDED[:3]
LEAST = ("tightest_tpot_slo_ms",)
LATEST = ("token_at_s",)
AVERAGED = ("recent_ttft_ms", "recent_tokens_ahead", "recent_tpot_ms")
# Meaningful only with counts of the same worker.
COUNTED = ("steps", "steps_at_s")
OWN = (*ADDED, *LEAST, *LATEST, *AVERAGED, *COUNTED)
# Rows per group of TPOT objectives: requests, sum of objectives, requests with a first token, and for those the sums
# of the first token's time and of the endpoint's step at that time.
BY_TPOT_SLO = ("requests", "slo_ms", "decoding", "first_token_at_s", "first_token_steps")

_EMPTY = {
    "updated_at_s": -np.inf,
    **dict.fromkeys(LEAST, np.inf),
    **dict.fromkeys(LATEST, -np.inf),
    **dict.fromkeys(AVERAGED, np.nan),
}
_LEAST_AT = len(ADDED)
_LATEST_AT = _LEAST_AT + len(LEAST)
_AVERAGED = slice(_LATEST_AT + len(LATEST), len(OWN) - len(COUNTED))
_FIRST_SLO_MS, _SLO_RATIO = float(TPOT_SLOS_MS[0]), float(TPOT_SLOS_MS[1] / TPOT_SLOS_MS[0])


def tpot_slo_place(slo_ms: float) -> int:
    """Return the index of the TPOT_SLOS_MS nearest to the objective."""
    place = round(math.log(max(slo_ms, _FIRST_SLO_MS) / _FIRST_SLO_MS, _SLO_RATIO))
    return min(place, len(TPOT_SLOS_MS) - 1)


def selection(slots: Indices) -> slice | Indices:
    """Return an index for ordered slots of an array: a slice, which copies nothing, if the slots have no gaps."""
    if not len(slots):
        return slice(0, 0)
    has_gaps = slots[-1] - slots[0] != len(slots) - 1
    return slots if has_gaps else slice(int(slots[0]), int(slots[-1]) + 1)


class PoolState:
    """The arrays of the pool, with one row per name in the dimensions SCRAPED, OWN and BY_TPOT_SLO.

    `scraped` is [SCRAPED, slots]. `workers` is [workers, OWN, slots], and `own` this worker's part of it.
    `by_tpot_slo` is [workers, BY_TPOT_SLO, TPOT_SLOS_MS, slots], and `own_by_tpot_slo` this worker's part of it.
    """

    def __init__(self, memory: mmap.mmap | None = None, worker: int = 0, workers: int = 1) -> None:
        shape = (_rows(workers), CAPACITY)
        self._memory = memory
        values: Floats = np.empty(shape) if memory is None else np.frombuffer(memory, dtype=np.float64).reshape(shape)
        self.scraped, own, by_tpot_slo = np.split(values, [len(SCRAPED), len(SCRAPED) + workers * len(OWN)])
        self.workers = own.reshape(workers, len(OWN), CAPACITY)
        self.own = self.workers[worker]
        self.by_tpot_slo = by_tpot_slo.reshape(workers, len(BY_TPOT_SLO), len(TPOT_SLOS_MS), CAPACITY)
        self.own_by_tpot_slo = self.by_tpot_slo[worker]
        self._in_flight = self.workers[:, OWN.index("in_flight")]
        self._requests = self.workers[:, : len(REQUESTS)]
        if memory is None:
            self.clear_all()

    @staticmethod
    def size_bytes(workers: int) -> int:
        return _rows(workers) * CAPACITY * 8

    def clear_all(self) -> None:
        """Reset all slots to their initial values."""
        self._fill(slice(None))

    def clear(self, slot: int) -> None:
        """Reset a slot for another endpoint. Only the process that assigns slots calls this."""
        self._fill(slot)

    def clear_worker(self, worker: int) -> None:
        """Clear the rows of a worker that has ended, including its requests in flight."""
        for row, name in enumerate(OWN):
            self.workers[worker, row] = _EMPTY.get(name, 0.0)
        self.by_tpot_slo[worker] = 0.0

    def is_idle(self, slot: int) -> bool:
        """Return whether no worker has anything in flight on the slot."""
        return not self._in_flight[:, slot].any()

    def requests(self, slot: int) -> list[float]:
        """Return the slot's REQUESTS, by all workers."""
        counts: list[float] = self._requests[:, :, slot].sum(axis=0).tolist()
        return counts

    def own_rows(self, slots: slice | Indices) -> Floats:
        """Return [OWN, slots] combined over all workers: sums, minima, maxima, and means of averages."""
        if len(self.workers) == 1:
            return np.array(self.own[:, slots])
        parts = self.workers[:, :, slots]
        combined: Floats = parts.sum(axis=0)
        combined[_LEAST_AT] = parts[:, _LEAST_AT].min(axis=0)
        combined[_LATEST_AT] = parts[:, _LATEST_AT].max(axis=0)
        averaged = parts[:, _AVERAGED]
        known = ~np.isnan(averaged)
        with np.errstate(invalid="ignore"):
            combined[_AVERAGED] = np.where(known, averaged, 0.0).sum(axis=0) / known.sum(axis=0)
        return combined

    def _fill(self, slots: slice | int) -> None:
        for row, name in enumerate(SCRAPED):
            self.scraped[row, slots] = _EMPTY.get(name, 0.0)
        for row, name in enumerate(OWN):
            self.workers[:, row, slots] = _EMPTY.get(name, 0.0)
        self.by_tpot_slo[..., slots] = 0.0


def _rows(workers: int) -> int:
    return len(SCRAPED) + workers * (len(OWN) + len(BY_TPOT_SLO) * len(TPOT_SLOS_MS))
