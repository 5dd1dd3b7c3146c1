"""The pool: its endpoints, their scraped metrics, and this picker's requests in flight."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from epp.pool.candidates import Candidates, adapters_of, candidates_of
from epp.pool.failures import Failures
from epp.pool.in_flight import InFlight, load_now, ms_since_token, uncounted_tokens
from epp.pool.model_costs import ModelCosts
from epp.pool.own_requests import OwnRequests
from epp.pool.prefix_index import UNKNOWN_CACHE, CacheSize, PrefixIndex
from epp.pool.slowdowns import Slowdowns
from epp.pool.state import CAPACITY, OWN, SCRAPED, PoolState
from epp.scheduling.request import Request
from epp.scheduling.snapshot import (
    NO_ADAPTERS,
    Adapters,
    Bools,
    Endpoint,
    Floats,
    Indices,
    Snapshot,
    TpotSlos,
)

logger = logging.getLogger("headroom.epp.pool")

# The last rows, in the order of CacheSize.
_CACHE = slice(SCRAPED.index("cache_tokens"), len(SCRAPED))
_DISPATCHED, _IN_FLIGHT, _PREFILL_TOKENS, _DECODE_TOKENS = (
    OWN.index(name) for name in ("dispatched", "in_flight", "prefill_tokens", "decode_tokens")
)
_TIGHTEST_TPOT_SLO, _RECENT_TTFT, _RECENT_TOKENS_AHEAD, _RECENT_TPOT = (
    OWN.index(name) for name in ("tightest_tpot_slo_ms", "recent_ttft_ms", "recent_tokens_ahead", "recent_tpot_ms")
)
_KV_USAGE, _UPDATED_AT = SCRAPED.index("kv_usage"), SCRAPED.index("updated_at_s")
# Seconds before the slot of a removed endpoint is reused; other workers learn of the removal a little later.
_REST_S = 2.0


class Pool:
    """The endpoints, each in a fixed slot. A slot is reused only when nothing is in flight on it.

    `on_dispatch` gets the slot and the block hashes of each prompt sent to a known endpoint.
    """

    def __init__(
        self,
        prefix_index: PrefixIndex,
        staleness_s: float,
        state: PoolState | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_dispatch: Callable[[int, Sequence[int]], None] | None = None,
    ) -> None:
        self.prefix_index = prefix_index
        self._on_dispatch = on_dispatch
        self._clock = clock
        self._staleness_s = staleness_s
        self._state = state or PoolState()
        self.own_requests = OwnRequests(self._state, clock)
        prefix_index.follow(*self._state.scraped[_CACHE])
        self._endpoints: dict[int, Endpoint] = {}
        self._adapters: dict[int, Adapters] = {}
        self._slot_by_address: dict[str, int] = {}
        self._freed_at_s: dict[int, float] = {}
        self._model_costs = ModelCosts()
        self.slowdowns = Slowdowns(clock, self._log_slowdown)
        self.failures = Failures(clock, self._log_failures)
        self._all = candidates_of({})

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def endpoints(self) -> Mapping[int, Endpoint]:
        """Endpoints by slot."""
        return self._endpoints

    @property
    def adapters(self) -> Mapping[int, Adapters]:
        """LoRA adapters by slot, as last scraped; only slots with adapters."""
        return self._adapters

    @property
    def dispatched_total(self) -> float:
        """Requests sent to the present endpoints since they joined, by all workers."""
        return float(self._state.workers[:, _DISPATCHED, self._all.taken].sum())

    def in_flight_on(self, slot: int) -> float:
        """Return the requests in flight on the slot's endpoint, through all workers."""
        return self._state.requests(slot)[1]

    def cache_of(self, slot: int) -> CacheSize:
        """Return the size of an endpoint's KV cache, as last scraped."""
        return CacheSize(*self._state.scraped[_CACHE, slot].tolist())

    def slot_of(self, address: str) -> int | None:
        return self._slot_by_address.get(address)

    def replace_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Replace the endpoints of the pool; an endpoint is identified by its address."""
        wanted = {endpoint.address: endpoint for endpoint in endpoints}
        placed = {self._slot_by_address[a]: e for a, e in wanted.items() if a in self._slot_by_address}
        self._note_freed(placed)
        free = (slot for slot in range(CAPACITY) if slot not in placed and self._is_free(slot))
        for address, endpoint in wanted.items():
            if address in self._slot_by_address:
                continue
            slot = next(free, None)
            if slot is None:
                logger.error("more than %d endpoints: %s and all after it are left out", CAPACITY, address)
                break
            self._state.clear(slot)
            placed[slot] = endpoint
        self.adopt_endpoints(placed)

    def _note_freed(self, placed: Mapping[int, Endpoint]) -> None:
        now_s = self._clock()
        self._freed_at_s.update(dict.fromkeys(self._endpoints.keys() - placed.keys(), now_s))
        self._freed_at_s = {slot: at_s for slot, at_s in self._freed_at_s.items() if now_s - at_s < _REST_S}

    def _is_free(self, slot: int) -> bool:
        return slot not in self._freed_at_s and self._state.is_idle(slot)

    def adopt_endpoints(self, placed: Mapping[int, Endpoint]) -> None:
        """Replace the endpoints of the pool; slots are already assigned."""
        for slot, endpoint in list(self._endpoints.items()):
            if slot not in placed or placed[slot].address != endpoint.address:
                self._adapters.pop(slot, None)
                self.prefix_index.forget(slot)
                self._model_costs.forget(slot)
                self.slowdowns.forget(slot)
                self.failures.forget(slot)
        for slot in placed.keys() - self._endpoints.keys():
            # Drop latencies that came late from the slot's previous endpoint.
            self.slowdowns.forget(slot)
            self.failures.forget(slot)
        self._endpoints = {slot: placed[slot] for slot in sorted(placed)}
        self._slot_by_address = {endpoint.address: slot for slot, endpoint in self._endpoints.items()}
        self._all = candidates_of(self._endpoints)

    def adopt_adapters(self, adapters: Mapping[int, Adapters]) -> None:
        """Take over the adapters that another process has scraped."""
        self._adapters = dict(adapters)

    def record_metrics(
        self,
        slot: int,
        waiting: float,
        running: float,
        kv_usage: float,
        adapters: Adapters = NO_ADAPTERS,
        cache: CacheSize = UNKNOWN_CACHE,
    ) -> None:
        """Record the values of a scrape."""
        if adapters != NO_ADAPTERS:
            self._adapters[slot] = adapters
        elif self._adapters:
            self._adapters.pop(slot, None)
        self._state.scraped[:, slot] = (
            waiting,
            running,
            min(max(kv_usage, 0.0), 1.0),
            self._clock(),
            *self._state.requests(slot),
            *cache,
        )

    def learn_costs(self, slots: Indices, prefill_ms_per_token: Floats, tpot_ms: Floats) -> None:
        """Take in the costs that the models predict: time per prompt token, and TPOT under the present load."""
        recent_tpot_ms = self._state.own_rows(slots)[_RECENT_TPOT]
        self._model_costs.learn(
            slots, prefill_ms_per_token, tpot_ms, recent_tpot_ms, self.slowdowns.factors[slots], self._clock()
        )

    def snapshot(self, request: Request, subset: frozenset[str] | None = None) -> Snapshot:
        """Return the candidates for a request: the endpoints with fresh metrics, or all when none is fresh.

        Endpoints that fail their requests are left out, unless more than half of the candidates do. `subset` limits the
        candidates to these hosts. The load counts what the picker's own requests have done since the last scrape.
        """
        now_s = self._clock()
        self.own_requests.catch_up(now_s)
        candidates = self._all
        if subset is not None:
            candidates = candidates.only(np.array([host in subset for host in candidates.hosts], dtype=bool))
        age_s = now_s - self._state.scraped[_UPDATED_AT, candidates.taken]
        stale: Bools = age_s > self._staleness_s
        if stale.any() and not stale.all():
            candidates = candidates.only(~stale)
            age_s, stale = age_s[~stale], stale[~stale]
        out = self.failures.left_out(candidates.slots)
        if out is not None:
            candidates, age_s, stale = candidates.only(~out), age_s[~out], stale[~out]
        return self._snapshot_of(candidates, age_s, stale, request, now_s)

    def tpot_slos(self, slots: Indices) -> TpotSlos:
        """Return the TPOT objectives and the progress of the requests in flight on these endpoints."""
        now_s = self._clock()
        self.own_requests.catch_up(now_s)
        return self.own_requests.tpot_slos(slots, now_s)

    def everyone(self) -> Snapshot:
        """Return all endpoints, fresh or stale, as a request without a prompt would see the pool."""
        return self._as_they_are(self._all, Request("", ""))

    def recent_ttft_ms(self, slots: Indices) -> Floats:
        """Return the recent mean TTFT of these endpoints; NaN where none was observed."""
        recent_ms: Floats = self._state.own_rows(slots)[_RECENT_TTFT]
        return recent_ms

    def snapshot_of_slot(self, slot: int, request: Request) -> Snapshot:
        """Return one endpoint's present state, even if the endpoint has left the pool."""
        endpoint = self._endpoints.get(slot) or Endpoint("", "")
        return self._as_they_are(candidates_of({slot: endpoint}), request)

    def snapshot_beside(self, flight: InFlight, prefix_score: float) -> Snapshot:
        """Return the state of a request's endpoint without the request's own share of the load."""
        candidates = self.snapshot_of_slot(flight.slot, flight.request)
        candidates.running[0] = max(candidates.running[0] - 1, 0.0)
        candidates.decode_tokens[0] = max(candidates.decode_tokens[0] - flight.decode_tokens, 0.0)
        candidates.prefix_score[0] = prefix_score
        return candidates

    def dispatch(self, slot: int, request: Request, prefix_score: float) -> InFlight:
        """Count a request as sent to the endpoint; only the uncached part of the prompt counts as prefill."""
        flight = self.own_requests.sent(slot, request, round(request.input_tokens * (1.0 - prefix_score)))
        # The endpoint may have left the pool while the decision waited for its predictions.
        if slot in self._endpoints and request.block_hashes:
            self.prefix_index.add(slot, request.block_hashes)
            if self._on_dispatch is not None:
                self._on_dispatch(slot, request.block_hashes)
        return flight

    def _log_slowdown(self, slot: int, factor: float) -> None:
        endpoint = self._endpoints.get(slot)
        if endpoint is None:
            return
        if factor == 1:
            logger.info("%s: latencies are as the models predict again", endpoint.name)
        else:
            logger.info("%s: latencies are %.1f times what the models predict", endpoint.name, factor)

    def _log_failures(self, slot: int, pause_s: float, fault: str) -> None:
        endpoint = self._endpoints.get(slot)
        if endpoint is None:
            return
        if pause_s:
            logger.warning("%s %s; it gets none for %g s", endpoint.name, fault, pause_s)
        else:
            logger.info("%s answers its requests again", endpoint.name)

    def _as_they_are(self, candidates: Candidates, request: Request) -> Snapshot:
        now_s = self._clock()
        self.own_requests.catch_up(now_s)
        age_s = now_s - self._state.scraped[_UPDATED_AT, candidates.taken]
        return self._snapshot_of(candidates, age_s, age_s > self._staleness_s, request, now_s)

    def _snapshot_of(
        self, candidates: Candidates, age_s: Floats, stale: Bools, request: Request, now_s: float
    ) -> Snapshot:
        scraped = self._state.scraped[:, candidates.taken]
        own = self._state.own_rows(candidates.taken)
        slowdown = self.slowdowns.factors[candidates.taken]
        waiting, running = load_now(scraped, own, age_s)
        return Snapshot(
            slots=candidates.slots,
            waiting=waiting,
            running=running,
            kv_usage=scraped[_KV_USAGE].copy(),
            metrics_age_s=age_s,
            stale=stale,
            in_flight=own[_IN_FLIGHT],
            prefill_tokens=own[_PREFILL_TOKENS],
            decode_tokens=own[_DECODE_TOKENS] + uncounted_tokens(own, now_s),
            tightest_tpot_slo_ms=own[_TIGHTEST_TPOT_SLO],
            # Divide the mean time by the mean tokens: a mean of ratios would be dominated by short prompts.
            recent_prefill_ms_per_token=own[_RECENT_TTFT] / own[_RECENT_TOKENS_AHEAD],
            recent_tpot_ms=own[_RECENT_TPOT],
            ms_since_token=ms_since_token(own, now_s),
            prefix_score=self.prefix_index.scores(request.block_hashes, candidates.slots),
            role=candidates.roles,
            prefill_ms_per_token=self._model_costs.prefill_ms_per_token[candidates.taken],
            unloaded_tpot_ms=self._model_costs.unloaded_tpot_ms[candidates.taken] * slowdown,
            tpot_bias=self._model_costs.tpot_bias[candidates.taken],
            slowdown=slowdown,
            endpoints=candidates.endpoints,
            adapters=adapters_of(candidates.slots, self._adapters),
            output_tokens=self.own_requests.output_tokens,
        )
