"""The comparison of the same requests in virtual time and through Envoy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy.stats import spearmanr

from lab.clocks.predicting import Prediction, from_decision, from_flight, prediction_quality
from lab.clocks.virtual import PhaseFlights, SentRequest, replay_placements
from simulator.arrival import Scenario
from simulator.cluster import Flight
from simulator.outcome import Outcome

PERCENTILES = (50, 95)


class RequestOutcome(NamedTuple):
    """The result of a request on either clock. Latencies are in ms, and None if they weren't measured."""

    number: int
    endpoint: int | None
    ttft_ms: float | None
    tpot_ms: float | None
    met: bool


class Side(msgspec.Struct, frozen=True):
    """A phase's judged requests on one clock. Percentiles have the keys p50 and p95.

    `shares` are the endpoints' shares of the requests, in order. `prediction` is None if the picker didn't decide:
    Envoy did, or the placements were replayed.
    """

    requests: int
    attainment: float
    ttft_ms: dict[str, float]
    tpot_ms: dict[str, float]
    shares: tuple[float, ...]
    prediction: Prediction | None = None


class TokenDelay(msgspec.Struct, frozen=True):
    """The difference between latencies through Envoy and in virtual time, with the same placements.

    `*_ms` are medians of the differences, above 0 if tokens came later through Envoy. `*_percent` are medians of the
    absolute differences, in percent of the latency in virtual time.
    """

    ttft_ms: float
    tpot_ms: float
    ttft_percent: float
    tpot_percent: float


class PhaseComparison(msgspec.Struct, frozen=True):
    """A phase on both clocks.

    `replayed` is virtual time with Envoy's placements. It differs from `envoy` by the engine's clock and by the path to
    the engine. `virtual` differs by decisions as well. It pools several runs; their attainments range over `chance`.
    """

    virtual: Side
    chance: tuple[float, float]
    envoy: Side
    replayed: Side
    apart: TokenDelay
    errors: int


class Order(msgspec.Struct, frozen=True):
    """The order of policies by SLO attainment on both clocks.

    `rank_correlation` is Spearman's, and None if all attainments on a clock are equal. `pairs` counts the pairs of
    policies whose attainments differ by more than `margin` in virtual time. `reversed_pairs` are those pairs that have
    the opposite order through Envoy.
    """

    rank_correlation: float | None
    margin: float
    pairs: int
    reversed_pairs: list[tuple[str, str]]


def compare(
    scenario: Scenario,
    runs: Sequence[PhaseFlights],
    outcomes: Sequence[Outcome],
    decisions: Mapping[str, Mapping[str, Any]],
    warm_up_share: float,
) -> PhaseComparison:
    """Compare a phase through Envoy with its runs in virtual time.

    Requests of the first `warm_up_share` of the phase aren't judged. `decisions` are those of the picker behind Envoy,
    by request id; it may have those of other phases too.
    """
    begin_s = warm_up_share * scenario.arrivals[-1].arrival_s
    judged = {arrival.index for arrival in scenario.arrivals if arrival.arrival_s >= begin_s}
    endpoints = len(scenario.endpoints)

    def judged_flights(flights: Sequence[Flight]) -> list[Flight]:
        return [flight for flight in flights if flight.arrival.index in judged]

    virtual = [judged_flights(run.flights) for run in runs]
    virtual_decisions = [
        from_flight(flight, run.predicted) for run, flights in zip(runs, virtual, strict=True) for flight in flights
    ]
    results = [[_flight_outcome(flight) for flight in flights] for flights in virtual]
    attained = [_side(one, endpoints).attainment for one in results]
    replayed = judged_flights(replay_placements(scenario, _placements(scenario, outcomes)))
    replayed_results = [_flight_outcome(flight) for flight in replayed]
    seen = [outcome for outcome in outcomes if outcome.request.index in judged]
    envoy = [_seen_outcome(outcome) for outcome in seen]
    decided = [from_decision(decisions[outcome.request.id]) for outcome in seen if outcome.request.id in decisions]
    return PhaseComparison(
        virtual=_side(
            [outcome for one in results for outcome in one],
            endpoints,
            prediction_quality(virtual_decisions) if decided else None,
        ),
        chance=(min(attained), max(attained)),
        envoy=_side(envoy, endpoints, prediction_quality(decided) if decided else None),
        replayed=_side(replayed_results, endpoints),
        apart=_token_delay(envoy, replayed_results),
        errors=sum(outcome.error is not None for outcome in outcomes),
    )


def order(phases: Mapping[str, PhaseComparison], margin: float) -> Order:
    """Compare the order of the policies by SLO attainment on both clocks."""
    virtual, envoy = ([getattr(phase, side).attainment for phase in phases.values()] for side in ("virtual", "envoy"))
    differ = len(set(virtual)) > 1 and len(set(envoy)) > 1
    apart = [
        (one, other) if phases[one].virtual.attainment < phases[other].virtual.attainment else (other, one)
        for one, other in combinations(phases, 2)
        if abs(phases[one].virtual.attainment - phases[other].virtual.attainment) > margin
    ]
    return Order(
        rank_correlation=round(float(spearmanr(virtual, envoy).statistic), 3) if differ else None,
        margin=margin,
        pairs=len(apart),
        reversed_pairs=[
            (worse, better)
            for worse, better in apart
            if phases[worse].envoy.attainment > phases[better].envoy.attainment
        ],
    )


def _placements(scenario: Scenario, outcomes: Sequence[Outcome]) -> list[SentRequest]:
    """Return the requests that a server took, with the times at which they were really sent."""
    return [
        SentRequest(
            replace(scenario.arrivals[outcome.request.index], arrival_s=outcome.sent_s),
            endpoint,
        )
        for outcome in outcomes
        if (endpoint := _served_by(outcome)) is not None
    ]


def _served_by(outcome: Outcome) -> int | None:
    """Return the index of the endpoint that served the request. A server's name ends with it."""
    return int(outcome.served_by.rpartition("-")[2]) if outcome.served_by else None


def _flight_outcome(flight: Flight) -> RequestOutcome:
    return RequestOutcome(flight.arrival.index, flight.endpoint, flight.ttft_ms, flight.tpot_ms, flight.met)


def _seen_outcome(outcome: Outcome) -> RequestOutcome:
    return RequestOutcome(outcome.request.index, _served_by(outcome), outcome.ttft_ms, outcome.tpot_ms, outcome.met)


def _side(results: Sequence[RequestOutcome], endpoints: int, prediction: Prediction | None = None) -> Side:
    served = [outcome.endpoint for outcome in results]
    return Side(
        requests=len(results),
        attainment=round(sum(outcome.met for outcome in results) / max(len(results), 1), 4),
        ttft_ms=_percentiles([outcome.ttft_ms for outcome in results]),
        tpot_ms=_percentiles([outcome.tpot_ms for outcome in results]),
        shares=tuple(round(served.count(endpoint) / max(len(served), 1), 4) for endpoint in range(endpoints)),
        prediction=prediction,
    )


def _percentiles(values: Sequence[float | None]) -> dict[str, float]:
    known = [value for value in values if value]
    found = np.percentile(known, PERCENTILES) if known else np.zeros(len(PERCENTILES))
    return {f"p{percent}": round(float(value), 2) for percent, value in zip(PERCENTILES, found, strict=True)}


def _token_delay(envoy: Sequence[RequestOutcome], replayed: Sequence[RequestOutcome]) -> TokenDelay:
    by_number = {outcome.number: outcome for outcome in replayed}
    pairs = [(outcome, by_number[outcome.number]) for outcome in envoy if outcome.number in by_number]
    ttft = _differences([(one.ttft_ms, other.ttft_ms) for one, other in pairs])
    tpot = _differences([(one.tpot_ms, other.tpot_ms) for one, other in pairs])
    return TokenDelay(ttft_ms=ttft[0], tpot_ms=tpot[0], ttft_percent=ttft[1], tpot_percent=tpot[1])


def _differences(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    known = np.array([pair for pair in pairs if pair[0] and pair[1]], dtype=np.float64).reshape(-1, 2)
    if not len(known):
        return 0.0, 0.0
    later_ms = known[:, 0] - known[:, 1]
    return round(float(np.median(later_ms)), 2), round(float(np.median(np.abs(later_ms) / known[:, 1])) * 100, 2)
