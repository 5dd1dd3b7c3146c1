"""The pool's state, in arrays over endpoint slots: what was scraped, and what this picker itself has in flight."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from epp.pool.prefix_index import PrefixIndex
from epp.scheduling.request import Request
from epp.scheduling.snapshot import NO_ADAPTERS, Adapters, Endpoint, Floats, Indices, Snapshot

_COLUMNS = (
    "waiting",
    "running",
    "kv_usage",
    "updated_at",
    "in_flight",
    "prefill_tokens",
    "decode_tokens",
    "tightest_tpot_slo_ms",
    "recent_prefill_ms_per_token",
    "recent_tpot_ms",
)
_EMPTY = {
    "updated_at": -np.inf,
    "tightest_tpot_slo_ms": np.inf,
    "recent_prefill_ms_per_token": np.nan,
    "recent_tpot_ms": np.nan,
}
# How much a new observation counts in the moving averages: a first token is rare and tells much, a gap is neither.
_FIRST_TOKEN_WEIGHT = 0.2
_GAP_WEIGHT = 0.02


@dataclass(slots=True)
class InFlight:
    """A request's share of its endpoint's load, given back in parts and, in any case, by Pool.finish."""

    slot: int
    request: Request
    prefill_tokens: int
    tokens_ahead: int
    decode_tokens: int = 0
    done: bool = False


class Pool:
    """Endpoints in slots that stay theirs. A slot is used again only when nothing is in flight on it."""

    def __init__(self, prefix_index: PrefixIndex, staleness_s: float) -> None:
        self.prefix_index = prefix_index
        self._staleness_s = staleness_s
        self._endpoints: dict[int, Endpoint] = {}
        self._adapters: dict[int, Adapters] = {}
        self._slot_by_address: dict[str, int] = {}
        self._in_flight: dict[int, set[int]] = {}
        self._tracked: dict[int, InFlight] = {}
        self._columns: dict[str, Floats] = {name: np.full(0, _EMPTY.get(name, 0.0)) for name in _COLUMNS}
        self._slots: Indices = np.zeros(0, dtype=np.intp)

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def endpoints(self) -> Mapping[int, Endpoint]:
        """Endpoints by slot."""
        return self._endpoints

    @property
    def in_flight_total(self) -> int:
        return len(self._tracked)

    def replace_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Makes the pool consist of these; an endpoint is known by its address."""
        wanted = {endpoint.address: endpoint for endpoint in endpoints}
        for address in self._slot_by_address.keys() - wanted.keys():
            slot = self._slot_by_address.pop(address)
            del self._endpoints[slot]
            self._adapters.pop(slot, None)
            self.prefix_index.forget(slot)
        for address, endpoint in wanted.items():
            if address not in self._slot_by_address:
                self._slot_by_address[address] = self._free_slot()
            self._endpoints[self._slot_by_address[address]] = endpoint
        self._slots = np.array(sorted(self._endpoints), dtype=np.intp)

    def record_metrics(
        self, slot: int, waiting: float, running: float, kv_usage: float, adapters: Adapters = NO_ADAPTERS
    ) -> None:
        """Takes over a scrape's values."""
        self._adapters[slot] = adapters
        self._columns["waiting"][slot] = waiting
        self._columns["running"][slot] = running
        self._columns["kv_usage"][slot] = min(max(kv_usage, 0.0), 1.0)
        self._columns["updated_at"][slot] = time.monotonic()

    def record_ttft(self, flight: InFlight, ttft_ms: float) -> None:
        """Takes an observed time to first token into the endpoint's recent speed of prefill."""
        self._average("recent_prefill_ms_per_token", flight.slot, ttft_ms / flight.tokens_ahead, _FIRST_TOKEN_WEIGHT)

    def record_gap(self, slot: int, gap_ms: float, tokens: int) -> None:
        """Takes the time that `tokens` further output tokens took into the endpoint's recent speed of decoding."""
        self._average("recent_tpot_ms", slot, gap_ms / tokens, 1 - (1 - _GAP_WEIGHT) ** tokens)

    def snapshot(self, request: Request, subset: frozenset[str] | None = None) -> Snapshot:
        """The candidates for a request: the fresh endpoints, or all when none is; `subset` limits them to these IPs."""
        slots = self._slots
        if subset is not None:
            keep = [self._endpoints[int(slot)].address.rpartition(":")[0] in subset for slot in slots]
            slots = slots[np.array(keep, dtype=bool)]
        age_s = time.monotonic() - self._columns["updated_at"][slots]
        stale = age_s > self._staleness_s
        if stale.any() and not stale.all():
            slots, age_s, stale = slots[~stale], age_s[~stale], stale[~stale]
        columns = self._columns
        return Snapshot(
            slots=slots,
            waiting=columns["waiting"][slots],
            running=columns["running"][slots],
            kv_usage=columns["kv_usage"][slots],
            metrics_age_s=age_s,
            stale=stale,
            in_flight=columns["in_flight"][slots],
            prefill_tokens=columns["prefill_tokens"][slots],
            decode_tokens=columns["decode_tokens"][slots],
            tightest_tpot_slo_ms=columns["tightest_tpot_slo_ms"][slots],
            recent_prefill_ms_per_token=columns["recent_prefill_ms_per_token"][slots],
            recent_tpot_ms=columns["recent_tpot_ms"][slots],
            prefix_score=self.prefix_index.scores(request.block_hashes, slots),
            endpoints=tuple(self._endpoints[int(slot)] for slot in slots),
            adapters=tuple(self._adapters.get(int(slot), NO_ADAPTERS) for slot in slots),
        )

    def dispatch(self, slot: int, request: Request, prefix_score: float) -> InFlight:
        """Counts a request as sent to the endpoint; only the part of its prompt that isn't cached is prefill."""
        uncached = round(request.input_tokens * (1.0 - prefix_score))
        ahead = uncached + int(self._columns["prefill_tokens"][slot])
        flight = InFlight(slot, request, uncached, max(ahead, 1))
        self._columns["in_flight"][slot] += 1
        self._columns["prefill_tokens"][slot] += flight.prefill_tokens
        self._tracked[id(flight)] = flight
        self._in_flight.setdefault(slot, set()).add(id(flight))
        if request.slo_tpot_ms is not None:
            tightest = self._columns["tightest_tpot_slo_ms"]
            tightest[slot] = min(tightest[slot], request.slo_tpot_ms)
        # The endpoint may have left the pool while the decision waited for its predictions.
        if slot in self._endpoints:
            self.prefix_index.add(slot, request.block_hashes)
        return flight

    def first_token(self, flight: InFlight) -> None:
        """Moves the prompt from what waits to be prefilled to what is held while decoding."""
        if flight.done or flight.decode_tokens:
            return
        self._columns["prefill_tokens"][flight.slot] -= flight.prefill_tokens
        flight.prefill_tokens, flight.decode_tokens = 0, flight.request.input_tokens
        self._columns["decode_tokens"][flight.slot] += flight.decode_tokens

    def finish(self, flight: InFlight) -> None:
        """Gives back whatever the request still holds; harmless when called again."""
        if flight.done:
            return
        flight.done = True
        slot = flight.slot
        self._columns["in_flight"][slot] -= 1
        self._columns["prefill_tokens"][slot] -= flight.prefill_tokens
        self._columns["decode_tokens"][slot] -= flight.decode_tokens
        del self._tracked[id(flight)]
        self._in_flight[slot].discard(id(flight))
        slo = flight.request.slo_tpot_ms
        if slo is not None and slo <= self._columns["tightest_tpot_slo_ms"][slot]:
            self._columns["tightest_tpot_slo_ms"][slot] = self._tightest(slot)

    def _average(self, column: str, slot: int, value: float, weight: float) -> None:
        averages = self._columns[column]
        known = averages[slot]
        averages[slot] = value if np.isnan(known) else known + weight * (value - known)

    def _tightest(self, slot: int) -> float:
        running = (self._tracked[key].request.slo_tpot_ms for key in self._in_flight[slot])
        return min((slo for slo in running if slo is not None), default=np.inf)

    def _free_slot(self) -> int:
        size = len(self._columns["in_flight"])
        slot = next((s for s in range(size) if s not in self._endpoints and not self._in_flight.get(s)), size)
        if slot == size:
            for name, values in self._columns.items():
                self._columns[name] = np.concatenate([values, np.full(max(8, size), _EMPTY.get(name, 0.0))])
        for name, values in self._columns.items():
            values[slot] = _EMPTY.get(name, 0.0)
        return slot
