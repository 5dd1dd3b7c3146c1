"""What of TPOT only the future decides: requests that come at the same moment of the same pool, with others after them.

A replay is deterministic, so that one with the same requests up to a moment has the same pool at that moment, down to
the last token; what follows is drawn anew. What the TPOTs then differ by no predictor could know, whatever it is told
of the present. It is less than what a router can't know: here the lengths of the answers that are under way, and that
of the request's own, are the same in every future.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np

from scripts.evaluation.noise_floor import Floor, floor_of_repeats
from scripts.evaluation.plan import OTHER_TRAFFIC, OURS
from scripts.evaluation.replay import LEARNING, Prepared, played, prepared_of, run_of, scenario_of
from simulator.arrival import Scenario
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
        # One future more than are compared: sessions go on in a past's own, and in no other.
        before, *after = (
            scenario_of(workload, requests_per_s, _SEED + past * (FUTURES + 1) + place, _PAST_S + _FUTURE_S)
            for place in range(FUTURES + 1)
        )
        runs = [_tpot_ms(parted(before, other), _SEED + past, prepared) for other in after]
        groups += [np.array([run[index] for run in runs], dtype=np.float32) for index in runs[0]]
    return groups


def parted(before: Scenario, after: Scenario, at_s: float = _PAST_S) -> Scenario:
    """The one up to a moment, and from then on the requests of the other."""
    arrivals = [
        *(arrival for arrival in before.arrivals if arrival.arrival_s < at_s),
        *(arrival for arrival in after.arrivals if arrival.arrival_s >= at_s),
    ]
    return replace(before, arrivals=tuple(replace(arrival, index=i) for i, arrival in enumerate(arrivals)))


def _tpot_ms(scenario: Scenario, seed: int, prepared: Prepared) -> Mapping[int, float]:
    """Of the last requests before the futures part, by index; an answer of one token has none."""
    begin = sum(arrival.arrival_s < _PAST_S for arrival in scenario.arrivals)
    judge, _ = played(scenario, run_of(OURS, scenario, seed, prepared, _NO_REFITS))
    return {
        flight.arrival.index: flight.tpot_ms
        for flight in judge.flights
        if begin - LAST <= flight.arrival.index < begin and flight.arrival.output_tokens > 1
    }
