"""The loop's story in virtual time: the same phases on simulated engines, with the parts of the picker and trainer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.policies.heuristics import HEURISTICS
from lab.evaluation.policies.picker import Picker, Predicted
from lab.evaluation.replay.judging import Judge
from lab.evaluation.replay.learning import LearningSettings, VirtualTrainer
from lab.evaluation.replay.replay import SCRAPE_S
from lab.loop.load import OfferedLoad
from lab.loop.policies import PREDICTION_HEADER, WARM_UP_PHASE, Phase
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Flight, Observer, Placement

_PAUSE_S = 1.0
_CHANCES = 1_000


@dataclass(frozen=True, slots=True)
class PhaseFlights:
    """What became of a phase's requests, and what was predicted of those that were placed by predictions, by index."""

    flights: Sequence[Flight]
    predicted: Mapping[int, Predicted]


def tell_virtually(
    load: OfferedLoad,
    policies: Sequence[Phase],
    *,
    phase_s: float,
    seed: int,
    learning: LearningSettings,
    on_phase: Callable[[], None] = lambda: None,
    chance: int = 0,
) -> dict[str, PhaseFlights]:
    """By phase, what became of the requests. As in the loop, one picker and one trainer go through all of the story.

    With another `chance` the same requests come, and what policies leave to chance falls otherwise.
    """
    chance_seed = seed + _CHANCES * chance
    endpoints = load.workload.endpoints
    scheduler = load_scheduler(WARM_UP_PHASE.configuration or "", os.environ)
    picker = Picker(len(endpoints), scheduler, load.workload.hash_tokens, chance_seed, VirtualTrainer(learning))
    told: dict[str, PhaseFlights] = {}
    now_s = 0.0
    for number, phase in enumerate((WARM_UP_PHASE, *policies)):
        scenario = load.at(phase.share).scenario(seed + (number > 0), phase_s)
        if phase.configuration is None:
            told[phase.name] = PhaseFlights(
                _simulate(scenario, HEURISTICS[phase.name](len(endpoints), chance_seed)), {}
            )
        else:
            picker.scheduler = load_scheduler(phase.configuration, os.environ)
            picker.prediction_based = phase.headers[PREDICTION_HEADER] == "true"
            flights = _simulate(_shift(scenario, number, now_s), picker)
            now_s = _PAUSE_S + max(flight.ended_s or 0.0 for flight in flights)
            told[phase.name] = PhaseFlights(flights, dict(picker.predicted))
            picker.predicted.clear()
        on_phase()
    return told


def _shift(scenario: Scenario, number: int, by_s: float) -> Scenario:
    """The scenario as the phase of this number: from `by_s` on, in texts that share nothing with other phases'."""
    arrivals = tuple(
        replace(
            arrival,
            arrival_s=arrival.arrival_s + by_s,
            hashes=tuple(hash((number, piece)) for piece in arrival.hashes),
        )
        for arrival in scenario.arrivals
    )
    return replace(scenario, arrivals=arrivals)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where somebody else has sent a request, and when."""

    arrival: Arrival
    endpoint: int


def fly_as_placed(scenario: Scenario, placed: Sequence[Placed]) -> list[Flight]:
    """What becomes of requests on engines in virtual time when each goes where it has gone before."""
    in_order = tuple(sorted((one.arrival for one in placed), key=lambda arrival: arrival.arrival_s))
    endpoints = {one.arrival.index: one.endpoint for one in placed}
    return _simulate(replace(scenario, arrivals=in_order), _AsPlaced(endpoints))


@dataclass(frozen=True)
class _AsPlaced:
    endpoints: Mapping[int, int]

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        return Placement(self.endpoints[arrival.index])

    def first_token(self, flight: Flight, now_s: float) -> None: ...

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None: ...


def _simulate(scenario: Scenario, policy: Observer) -> list[Flight]:
    judge = Judge(policy)
    cluster = Cluster(scenario.endpoints, scenario.hash_tokens, judge)
    if not isinstance(policy, Picker):
        cluster.run(scenario.arrivals, scenario.changes)
        return judge.flights
    begins_s = scenario.arrivals[0].arrival_s - SCRAPE_S
    policy.attach(cluster)

    def tick(now_s: float) -> None:
        if now_s >= begins_s:
            policy.scrape(cluster, now_s)

    cluster.run(scenario.arrivals, scenario.changes, tick, SCRAPE_S)
    return judge.flights
