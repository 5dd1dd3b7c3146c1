"""What of TPOT no router can know: a moment of the same pool, with one future after it and another.

A replay is deterministic, so that one with the same requests up to a moment has the same pool at that moment, down to
the last token. What follows is drawn anew: the requests that come, and how long the answers that are under way will be,
of which nothing is seen before they end. What the TPOTs then differ by no predictor could know that isn't told lengths,
whatever it is told of the present.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np

from lab.evaluation.plan import OTHER_TRAFFIC, OURS
from lab.evaluation.policies.foresight import load_of
from lab.evaluation.policies.lengths import answers_of, longer_than
from lab.evaluation.replay.replay import LEARNING, Prepared, played, prepared_of, run_of, scenario_of
from lab.evaluation.studies.noise_floor import Floor, floor_of_repeats
from simulator.arrival import Scenario
from simulator.cluster import Cluster, Flight
from trainer.wire import Matrix

# Two futures tell as much of a past as they cost; requests of the same past share most of what comes.
PASTS, FUTURES = 20, 2
# Looked at are so many requests, the last ones before the futures part.
LAST = 10
# By then the pool is full; after it requests go on to come, for longer than most answers take.
_PAST_S, _FUTURE_S = 15.0, 15.0
# Neither the traffic that is judged nor that of models and rows.
_SEED = 3 * OTHER_TRAFFIC
# Placed by the models that there are: how they would be refitted is no part of the question.
_NO_REFITS = msgspec.structs.replace(LEARNING, min_new_rows=sys.maxsize)


def tpot_floor(workload: str, requests_per_s: float, prepared: bytes | None) -> Floor | None:
    """Of requests that the slo profile places; None where too few come."""
    return floor_of_repeats(repeated_tpot_ms(workload, requests_per_s, prepared_of(prepared)))


def repeated_tpot_ms(workload: str, requests_per_s: float, prepared: Prepared, pasts: int = PASTS) -> list[Matrix]:
    """In ms, a group of [FUTURES] for each request."""
    groups: list[Matrix] = []
    for past in range(pasts):
        seed = _SEED + past * (FUTURES + 1)
        runs = [_tpot_ms(flights) for flights in futures_of(workload, requests_per_s, prepared, seed)]
        in_all = set(runs[0]).intersection(*runs[1:])
        groups += [np.array([run[index] for run in runs], dtype=np.float32) for index in sorted(in_all)]
    return groups


def futures_of(workload: str, requests_per_s: float, prepared: Prepared, seed: int) -> list[list[Flight]]:
    """What becomes of the requests of one past, in each of its futures."""
    # One future more than are compared: sessions go on in a past's own, and in no other.
    before, *after = (
        scenario_of(workload, requests_per_s, seed + place, _PAST_S + _FUTURE_S) for place in range(FUTURES + 1)
    )
    generated = _generated(parted(before), seed, prepared)
    return [
        played(future, run_of(OURS, future, seed, prepared, _NO_REFITS))[0].flights
        for future in (
            parted(_lengthened(before, generated, seed + place), other) for place, other in enumerate(after, 1)
        )
    ]


def parted(before: Scenario, after: Scenario | None = None, at_s: float = _PAST_S) -> Scenario:
    """The one up to a moment, and from then on the requests of the other, or none."""
    arrivals = [
        *(arrival for arrival in before.arrivals if arrival.arrival_s < at_s),
        *(arrival for arrival in (after.arrivals if after else ()) if arrival.arrival_s >= at_s),
    ]
    return replace(before, arrivals=tuple(replace(arrival, index=i) for i, arrival in enumerate(arrivals)))


def _generated(past: Scenario, seed: int, prepared: Prepared) -> Mapping[int, int]:
    """By index, of the answers under way when the futures part: how long they are by the end of the next step."""
    run = run_of(OURS, past, seed, prepared, _NO_REFITS)
    found: dict[int, int] = {}

    def scrape(cluster: Cluster, now_s: float) -> None:
        if now_s >= _PAST_S and not found:
            for endpoint in range(len(cluster.engines)):
                load = load_of(cluster, endpoint, now_s)
                made = (load.decodes.lengths - load.decodes.steps).astype(int)
                found.update(zip(load.decodes.requests.tolist(), made.tolist(), strict=True))
                found.update({one.request: one.length - one.outputs for one in load.prompts})
        if run.scrape:
            run.scrape(cluster, now_s)

    played(past, replace(run, scrape=scrape))
    return found


def _lengthened(before: Scenario, generated: Mapping[int, int], seed: int) -> Scenario:
    """With other lengths of the answers that are under way, each longer than what there is of it."""
    rng, answers = np.random.default_rng(seed), answers_of(before.name)
    arrivals = [
        replace(arrival, output_tokens=longer_than(answers, generated[index], rng)) if index in generated else arrival
        for index, arrival in enumerate(before.arrivals)
    ]
    return replace(before, arrivals=tuple(arrivals))


def _tpot_ms(flights: list[Flight]) -> Mapping[int, float]:
    """Of the last requests before the futures part, by index; an answer of one token has none."""
    past = [flight for flight in flights if flight.arrival.arrival_s < _PAST_S]
    first = max(flight.arrival.index for flight in past) + 1 - LAST
    return {
        flight.arrival.index: flight.tpot_ms
        for flight in past
        if flight.arrival.index >= first and flight.arrival.output_tokens > 1
    }
