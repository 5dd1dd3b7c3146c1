"""Early ends of runs: a run is decided when so many requests have missed that its attainment can't matter."""

import math
from collections.abc import Sequence
from heapq import heappop, heappush

from simulator.arrival import Arrival
from simulator.cluster import Flight

LEAST_ATTAINMENT = 0.7
"""Attainments below this count as equal. Searches look for 0.9 and 0.99 only."""
# Tolerance of deadlines, so that rounding never makes a request miss.
_LATE_S = 1e-6


class Misses:
    """Counts the judged requests that have missed an objective, each as soon as the miss is certain.

    A waiting request misses when its first token can only come too late. A request with its first token misses when its
    last token can only come too late. So at the end of a whole run, the count equals the run's judgement.
    """

    def __init__(self, arrivals: Sequence[Arrival] = (), begin_s: float = math.inf) -> None:
        """Take all arrivals of the run. Those from `begin_s` on are judged."""
        self.judged = sum(arrival.arrival_s >= begin_s for arrival in arrivals)
        self.missed = 0
        self.decided_at_s: float | None = None
        self._begin_s = begin_s
        self._due_s: dict[int, float] = {}
        self._deadlines: list[tuple[float, int]] = []

    @property
    def at_most(self) -> float:
        """The share of requests that meets its objectives if no other request misses."""
        return (self.judged - self.missed) / self.judged

    def decided(self, now_s: float) -> bool:
        """Return whether the attainment will be below `LEAST_ATTAINMENT`. Keep the first moment of this."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] < now_s:
            due_s, index = heappop(deadlines)
            if self._due_s.get(index) == due_s:
                self._miss(index)
        if self.decided_at_s is None and self.judged and self.at_most < LEAST_ATTAINMENT:
            self.decided_at_s = now_s
        return self.decided_at_s is not None

    def shed(self, arrival: Arrival) -> None:
        self.missed += arrival.arrival_s >= self._begin_s

    def placed(self, arrival: Arrival) -> None:
        if arrival.arrival_s >= self._begin_s:
            self._expect(arrival.index, arrival.arrival_s + arrival.slo_ttft_ms / 1000)

    def first_token(self, flight: Flight, now_s: float) -> None:
        arrival = flight.arrival
        if arrival.index not in self._due_s:
            return
        if flight.ttft_ms > arrival.slo_ttft_ms:
            self._miss(arrival.index)
        else:
            self._expect(arrival.index, now_s + (arrival.output_tokens - 1) * arrival.slo_tpot_ms / 1000)

    def ended(self, flight: Flight) -> None:
        if self._due_s.pop(flight.arrival.index, None) is not None:
            self.missed += not flight.met

    def _expect(self, index: int, by_s: float) -> None:
        self._due_s[index] = by_s + _LATE_S
        heappush(self._deadlines, (self._due_s[index], index))

    def _miss(self, index: int) -> None:
        del self._due_s[index]
        self.missed += 1
