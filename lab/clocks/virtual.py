"""The demo's phases in virtual time: simulated engines, with the real code of picker and trainer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.policies.heuristics import HEURISTICS
from lab.evaluation.policies.picker import SCRAPE_S, Picker, Predicted
from lab.evaluation.replay.judging import Judge
from lab.evaluation.replay.learning import LearningSettings, VirtualTrainer
from lab.loop.load import OfferedLoad
from lab.loop.policies import PREDICTION_HEADER, WARM_UP_PHASE, Phase
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Flight, Observer, Placement

# Seconds between two phases in virtual time.
_PAUSE_S = 1.0
# Distance between the seeds of policies in different runs of the same requests.
_SEED_STEP = 1_000


@dataclass(frozen=True, slots=True)
class PhaseFlights:
    """A phase's flights, and the predictions of those that were placed by predictions, by request index."""

    flights: Sequence[Flight]
    predicted: Mapping[int, Predicted]


def run_story_virtually(
    load: OfferedLoad,
    policies: Sequence[Phase],
    *,
    phase_s: float,
    seed: int,
    learning: LearningSettings,
    on_phase: Callable[[], None] = lambda: None,
    chance: int = 0,
) -> dict[str, PhaseFlights]:
    """Run the warm-up and the policies' phases in virtual time. Return the results by phase name.

    As in the demo, one picker and one trainer go through all phases. `chance` changes the seed of the policies' random
    choices, and not the requests.
    """
    chance_seed = seed + _SEED_STEP * chance
    endpoints = load.workload.endpoints
    scheduler = load_scheduler(WARM_UP_PHASE.configuration or "", os.environ)
    picker = Picker(len(endpoints), scheduler, load.workload.hash_tokens, chance_seed, VirtualTrainer(learning))
    results: dict[str, PhaseFlights] = {}
    now_s = 0.0
    for number, phase in enumerate((WARM_UP_PHASE, *policies)):
        scenario = load.at(phase.share).scenario(seed + (number > 0), phase_s)
        if phase.configuration is None:
            results[phase.name] = PhaseFlights(
                _simulate(scenario, HEURISTICS[phase.name](len(endpoints), chance_seed)), {}
            )
        else:
            picker.director.scheduler = load_scheduler(phase.configuration, os.environ)
            picker.prediction_based = phase.headers[PREDICTION_HEADER] == "true"
            flights = _simulate(_shift(scenario, number, now_s), picker)
            now_s = _PAUSE_S + max(flight.ended_s or 0.0 for flight in flights)
            results[phase.name] = PhaseFlights(flights, dict(picker.predicted))
            picker.predicted.clear()
        on_phase()
    return results


def _shift(scenario: Scenario, number: int, by_s: float) -> Scenario:
    """Return the scenario shifted to begin at `by_s`, with prompts that share nothing with those of other phases."""
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
class SentRequest:
    """A request with the endpoint that served it. `arrival` has the time at which it was sent."""

    arrival: Arrival
    endpoint: int


def replay_placements(scenario: Scenario, placed: Sequence[SentRequest]) -> list[Flight]:
    """Replay requests in virtual time, each on the endpoint that served it before. Return their flights."""
    in_order = tuple(sorted((one.arrival for one in placed), key=lambda arrival: arrival.arrival_s))
    endpoints = {one.arrival.index: one.endpoint for one in placed}
    return _simulate(replace(scenario, arrivals=in_order), _FixedPlacement(endpoints))


@dataclass(frozen=True)
class _FixedPlacement:
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
