"""A policy that knows how long every answer will be, and what each engine will do next: the bound of prediction.

It doesn't know who will come later, so it is no bound of scheduling.
"""

import math
import random
from collections.abc import Iterable

from scripts.evaluation.foresight import Fate, fates, state_of, with_arrival
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Placement

# Later arrivals make everything slower: an objective that would just be met is as good as a coin.
_MARGIN = 0.1
_TIE = 0.02


class Oracle:
    """Places where most requests, this one and those that are there, will meet their objectives."""

    def __init__(self, seed: int) -> None:
        self._flights: dict[int, Flight] = {}
        self._arrivals: dict[int, Arrival] = {}
        self._cluster: Cluster | None = None
        self._rng = random.Random(f"{seed}/oracle")

    def attach(self, cluster: Cluster) -> None:
        """Says where to look, before the first request."""
        self._cluster = cluster

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        assert self._cluster
        cluster = self._cluster
        self._arrivals[arrival.index] = arrival
        values = []
        for endpoint, engine in enumerate(cluster.engines):
            state = state_of(cluster, endpoint, now_s)
            cached = engine.cached_tokens(arrival.hashes, arrival.prompt_tokens)
            after = list(fates(with_arrival(state, arrival, cached)))
            value = self._value(after) - self._value(fates(state))
            mine = next(fate for fate in after if fate.request == arrival.index)
            values.append((value, mine.ended_s - now_s))
        quickest = min(took_s for _, took_s in values)
        scores = [value - _TIE * took_s / quickest + 1e-9 * self._rng.random() for value, took_s in values]
        return Placement(scores.index(max(scores)))

    def first_token(self, flight: Flight, now_s: float) -> None:
        self._flights[flight.arrival.index] = flight

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None:
        self._flights.pop(flight.arrival.index, None)
        del self._arrivals[flight.arrival.index]

    def _value(self, after: Iterable[Fate]) -> float:
        return sum(self._chance(fate) for fate in after)

    def _chance(self, fate: Fate) -> float:
        """That a request will have met its objectives."""
        arrival = self._arrivals[fate.request]
        known = self._flights.get(fate.request)
        first_s = known.first_token_s if known and known.first_token_s is not None else fate.first_token_s
        if first_s is None:
            return 1.0
        ttft_ms = (first_s - arrival.arrival_s) * 1000
        tpot_ms = (fate.ended_s - first_s) * 1000 / max(arrival.output_tokens - 1, 1)
        if known and known.first_token_s is not None and ttft_ms > arrival.slo_ttft_ms:
            return 0.0
        return _met(ttft_ms, arrival.slo_ttft_ms) * _met(tpot_ms, arrival.slo_tpot_ms)


def _met(latency_ms: float, slo_ms: float) -> float:
    return 0.5 * math.erfc(math.log(max(latency_ms, 1e-6) / slo_ms) / _MARGIN / math.sqrt(2))
