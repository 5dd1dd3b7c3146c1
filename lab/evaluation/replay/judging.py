"""The judgement of a run: its result from the flights of its requests."""

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lab.evaluation.policies.picker import Predicted
from lab.evaluation.replay.misses import Misses
from lab.evaluation.replay.point import PointResult
from simulator.arrival import Arrival, Change, Scenario
from simulator.cluster import Cluster, Flight, Observer, Placement

_PERCENTILES = (50, 90, 95, 99)
# Width of the bins of errors over time.
_BIN_S = 5.0
# Width of the bins if only requests on changed endpoints count, which are few.
_CHANGED_BIN_S = 10.0


@dataclass(slots=True)
class Judge:
    """An observer that forwards all calls to a policy, measures its decision time, and keeps the requests' flights."""

    policy: Observer
    misses: Misses = field(default_factory=Misses)
    flights: list[Flight] = field(default_factory=list)
    shed: list[Arrival] = field(default_factory=list)
    decided: int = 0
    deciding_s: float = 0.0

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        began_at = time.perf_counter()
        placement = self.policy.place(arrival, now_s)
        self.deciding_s += time.perf_counter() - began_at
        self.decided += 1
        if placement is None:
            self.shed.append(arrival)
            self.misses.shed(arrival)
        else:
            self.misses.placed(arrival)
        return placement

    def first_token(self, flight: Flight, now_s: float) -> None:
        self.policy.first_token(flight, now_s)
        self.misses.first_token(flight, now_s)

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None:
        self.policy.marked(flight, tokens, now_s)

    def ended(self, flight: Flight, now_s: float) -> None:
        self.policy.ended(flight, now_s)
        self.flights.append(flight)
        self.misses.ended(flight)

    def result(
        self,
        scenario: Scenario,
        cluster: Cluster,
        predicted: Mapping[int, Predicted],
        begin_s: float,
        *,
        policy: str,
        requests_per_s: float,
        seed: int,
        wall_s: float,
    ) -> PointResult:
        """Judge the requests that arrived from `begin_s` on. A shed request has missed both objectives.

        Raise ValueError if there are no requests to judge.
        """
        flights = [flight for flight in self.flights if flight.arrival.arrival_s >= begin_s]
        shed = [arrival for arrival in self.shed if arrival.arrival_s >= begin_s]
        cut_s = self.misses.decided_at_s
        last_s = min(scenario.arrivals[-1].arrival_s, math.inf if cut_s is None else cut_s)
        span_s = last_s - begin_s
        if not self.misses.judged or span_s <= 0:
            raise ValueError(
                f"{scenario.name} at {requests_per_s:g} requests/s: none of {len(scenario.arrivals)} requests came "
                "after the warm-up; set more seconds or a higher rate"
            )
        met = sum(flight.met for flight in flights)
        # After the last arrival the pool empties. Throughput counts only answers before it. Predictions of later
        # answers aren't judged, because no model can know that the arrivals end.
        in_traffic = [flight for flight in self.flights if (flight.ended_s or 0.0) <= last_s]
        judged = [flight for flight in in_traffic if flight.arrival.arrival_s >= begin_s]
        errors = _errors(judged, predicted)
        return PointResult(
            workload=scenario.name,
            policy=policy,
            requests_per_s=requests_per_s,
            seed=seed,
            requests=self.misses.judged,
            attainment=self.misses.at_most,
            attainment_by_class=_by_class(flights, shed),
            goodput_rps=met / span_s,
            ttft_ms=_percentiles([flight.ttft_ms for flight in flights]),
            tpot_ms=_percentiles([flight.tpot_ms for flight in flights]),
            e2e_ms=_percentiles([((f.ended_s or 0.0) - f.arrival.arrival_s) * 1000 for f in flights]),
            throughput_tokens_per_s=sum(flight.arrival.output_tokens for flight in judged) / span_s,
            fairness=_fairness(scenario, cluster.output_tokens),
            cached_share=sum(e.prompt_tokens_cached for e in cluster.engines)
            / max(sum(e.prompt_tokens_queried for e in cluster.engines), 1),
            preemptions=sum(engine.preemptions for engine in cluster.engines),
            decision_us=self.deciding_s / max(self.decided, 1) * 1e6,
            wall_s=wall_s,
            ttft_mdape=_median(errors[:, 1]),
            tpot_mdape=_median(errors[:, 2]),
            coverage_q90=float(errors[:, 3].mean()) if len(errors) else None,
            errors_over_time=_over_time(
                _errors(_on_changed_endpoints(in_traffic, scenario.changes), predicted),
                _CHANGED_BIN_S if scenario.changes else _BIN_S,
                last_s,
            ),
            shed=len(shed),
            is_cut=cut_s is not None,
        )


def _errors(
    flights: Sequence[Flight], predicted: Mapping[int, Predicted]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return an array with a row for each predicted request.

    A row is (arrival in s, error of the TTFT median, error of the TPOT median, coverage of both 0.9-quantiles), the
    last three in percent.
    """
    rows = []
    for flight in flights:
        one = predicted.get(flight.arrival.index)
        if one is None or flight.arrival.output_tokens < 2:
            continue
        held = int(flight.ttft_ms <= one.ttft_ms) + int(flight.tpot_ms <= one.tpot_ms)
        rows.append(
            (
                flight.arrival.arrival_s,
                100 * abs(one.ttft_median_ms / flight.ttft_ms - 1),
                100 * abs(one.tpot_median_ms / flight.tpot_ms - 1),
                100 * held / 2,
            )
        )
    return np.array(rows).reshape(-1, 4)


def _on_changed_endpoints(flights: Sequence[Flight], changes: Sequence[Change]) -> list[Flight]:
    """Return the requests on changed endpoints, or all requests if no endpoint changes.

    Errors over time show how a model recovers from a change. Requests in progress at a change don't count, because no
    model could foresee the change.
    """
    if not changes:
        return list(flights)
    changes_s: dict[int, list[float]] = defaultdict(list)
    for change in changes:
        changes_s[change.endpoint].append(change.at_s)
    return [
        flight
        for flight in flights
        if flight.endpoint in changes_s
        and not any(flight.arrival.arrival_s < at_s < (flight.ended_s or 0.0) for at_s in changes_s[flight.endpoint])
    ]


def _over_time(
    errors: np.ndarray[tuple[int, int], np.dtype[np.float64]], bin_s: float, last_s: float
) -> list[tuple[float, float, float, float]]:
    """Return medians of errors, and mean coverage, by bin. The last bin is dropped: only its short answers ended."""
    bins = []
    errors = errors[errors[:, 0] <= last_s - bin_s]
    if len(errors):
        number = (errors[:, 0] // bin_s).astype(int)
        for one in np.unique(number):
            rows = errors[number == one]
            medians = np.median(rows[:, 1:3], axis=0)
            bins.append((float(one * bin_s), float(medians[0]), float(medians[1]), float(rows[:, 3].mean())))
    return bins


def _median(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    found = np.percentile(values, _PERCENTILES) if values else np.zeros(len(_PERCENTILES))
    return {f"p{percent}": round(float(value), 3) for percent, value in zip(_PERCENTILES, found, strict=True)}


def _by_class(flights: Sequence[Flight], shed: Sequence[Arrival]) -> dict[str, float]:
    met: dict[str, list[bool]] = defaultdict(list)
    for flight in flights:
        met[flight.arrival.slo_class].append(flight.met)
    for arrival in shed:
        met[arrival.slo_class].append(False)
    return {name: sum(kept) / len(kept) for name, kept in sorted(met.items())}


def _fairness(scenario: Scenario, tokens: Sequence[int]) -> float:
    """Return Jain's index of the endpoints' output tokens, each divided by the endpoint's capacity.

    The capacity is the rate of output tokens in a batch of 32 with 1,000 tokens of context each.
    """
    shares = [
        made * (hardware.cost.dense_ms(32) + hardware.cost.decode_attention_ms(32, 32_000))
        for made, hardware in zip(tokens, scenario.endpoints, strict=True)
    ]
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
