"""What both clocks say of the same requests, and how far apart they are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy.stats import spearmanr

from lab.clocks.predicting import Prediction, from_decision, from_flight, judge
from lab.clocks.virtual import PhaseFlights, Placed, fly_as_placed
from simulator.arrival import Scenario
from simulator.cluster import Flight
from simulator.outcome import Outcome

PERCENTILES = (50, 95)


class RequestOutcome(NamedTuple):
    """What became of a request on either clock; latencies in ms, None where nothing came."""

    number: int
    endpoint: int | None
    ttft_ms: float | None
    tpot_ms: float | None
    met: bool


class Side(msgspec.Struct, frozen=True):
    """A phase on one clock, of the judged requests; percentiles by p50 and p95.

    `shares` of the requests are those of the endpoints, in their order; `prediction` is None where nobody decided but
    what had been decided before, or Envoy.
    """

    requests: int
    attainment: float
    ttft_ms: dict[str, float]
    tpot_ms: dict[str, float]
    shares: tuple[float, ...]
    prediction: Prediction | None = None


class TokenDelay(msgspec.Struct, frozen=True):
    """How much later than in virtual time tokens came through Envoy, when each request goes to the same endpoint.

    The median of the differences in ms, and of their sizes in percent of virtual time's latency.
    """

    ttft_ms: float
    tpot_ms: float
    ttft_percent: float
    tpot_percent: float


class PhaseComparison(msgspec.Struct, frozen=True):
    """`replayed` is virtual time with the placements of Envoy: it differs by the engine's clock and the path to it,
    while `virtual` differs by decisions, too: it is of several runs, whose attainments lie in `chance`."""

    virtual: Side
    chance: tuple[float, float]
    envoy: Side
    replayed: Side
    apart: TokenDelay
    errors: int


class Order(msgspec.Struct, frozen=True):
    """Spearman's rank correlation of the policies' attainments; None with fewer than two that differ.

    `pairs` are those of policies whose attainments differ by more than `margin` in virtual time, `reversed_pairs` those
    of them that are the other way round through Envoy.
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
    """Of one phase, and its runs in virtual time. Requests of the first part of it aren't judged.

    `decisions` of the picker behind Envoy are those of any requests, by their ids.
    """
    begin_s = warm_up_share * scenario.arrivals[-1].arrival_s
    judged = {arrival.index for arrival in scenario.arrivals if arrival.arrival_s >= begin_s}
    endpoints = len(scenario.endpoints)

    def flights(all_of_them: Sequence[Flight]) -> list[Flight]:
        return [flight for flight in all_of_them if flight.arrival.index in judged]

    virtual = [flights(run.flights) for run in runs]
    foretold = [from_flight(flight, run.predicted) for run, ours in zip(runs, virtual, strict=True) for flight in ours]
    fates = [[_of_flight(flight) for flight in ours] for ours in virtual]
    attained = [_side(one, endpoints).attainment for one in fates]
    as_placed = [_of_flight(flight) for flight in flights(fly_as_placed(scenario, _placements(scenario, outcomes)))]
    seen = [outcome for outcome in outcomes if outcome.request.index in judged]
    envoy = [_of_outcome(outcome) for outcome in seen]
    decided = [from_decision(decisions[outcome.request.id]) for outcome in seen if outcome.request.id in decisions]
    return PhaseComparison(
        virtual=_side([fate for one in fates for fate in one], endpoints, judge(foretold) if decided else None),
        chance=(min(attained), max(attained)),
        envoy=_side(envoy, endpoints, judge(decided) if decided else None),
        replayed=_side(as_placed, endpoints),
        apart=_apart(envoy, as_placed),
        errors=sum(outcome.error is not None for outcome in outcomes),
    )


def order(phases: Mapping[str, PhaseComparison], margin: float) -> Order:
    """Of policies' attainments on both clocks."""
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


def _placements(scenario: Scenario, outcomes: Sequence[Outcome]) -> list[Placed]:
    """What was sent late arrives late; what no server took isn't there."""
    return [
        Placed(
            replace(scenario.arrivals[outcome.request.index], arrival_s=outcome.sent_s),
            endpoint,
        )
        for outcome in outcomes
        if (endpoint := _served_by(outcome)) is not None
    ]


def _served_by(outcome: Outcome) -> int | None:
    """Servers' names end with their places."""
    return int(outcome.served_by.rpartition("-")[2]) if outcome.served_by else None


def _of_flight(flight: Flight) -> RequestOutcome:
    return RequestOutcome(flight.arrival.index, flight.endpoint, flight.ttft_ms, flight.tpot_ms, flight.met)


def _of_outcome(outcome: Outcome) -> RequestOutcome:
    return RequestOutcome(outcome.request.index, _served_by(outcome), outcome.ttft_ms, outcome.tpot_ms, outcome.met)


def _side(fates: Sequence[RequestOutcome], endpoints: int, prediction: Prediction | None = None) -> Side:
    served = [fate.endpoint for fate in fates]
    return Side(
        requests=len(fates),
        attainment=round(sum(fate.met for fate in fates) / max(len(fates), 1), 4),
        ttft_ms=_percentiles([fate.ttft_ms for fate in fates]),
        tpot_ms=_percentiles([fate.tpot_ms for fate in fates]),
        shares=tuple(round(served.count(endpoint) / max(len(served), 1), 4) for endpoint in range(endpoints)),
        prediction=prediction,
    )


def _percentiles(values: Sequence[float | None]) -> dict[str, float]:
    known = [value for value in values if value]
    found = np.percentile(known, PERCENTILES) if known else np.zeros(len(PERCENTILES))
    return {f"p{percent}": round(float(value), 2) for percent, value in zip(PERCENTILES, found, strict=True)}


def _apart(envoy: Sequence[RequestOutcome], replayed: Sequence[RequestOutcome]) -> TokenDelay:
    by_number = {fate.number: fate for fate in replayed}
    pairs = [(fate, by_number[fate.number]) for fate in envoy if fate.number in by_number]
    ttft = _differences([(one.ttft_ms, other.ttft_ms) for one, other in pairs])
    tpot = _differences([(one.tpot_ms, other.tpot_ms) for one, other in pairs])
    return TokenDelay(ttft_ms=ttft[0], tpot_ms=tpot[0], ttft_percent=ttft[1], tpot_percent=tpot[1])


def _differences(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    known = np.array([pair for pair in pairs if pair[0] and pair[1]], dtype=np.float64).reshape(-1, 2)
    if not len(known):
        return 0.0, 0.0
    later_ms = known[:, 0] - known[:, 1]
    return round(float(np.median(later_ms)), 2), round(float(np.median(np.abs(later_ms) / known[:, 1])) * 100, 2)
