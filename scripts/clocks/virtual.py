"""The loop's story in virtual time: the same phases on simulated engines, with the parts of the picker and trainer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epp.scheduling.config import load_scheduler
from scripts.evaluation.heuristics import HEURISTICS
from scripts.evaluation.judging import Judge
from scripts.evaluation.learning import LearningSettings, Models, VirtualTrainer
from scripts.evaluation.picker import Picker
from scripts.evaluation.replay import SCRAPE_S
from scripts.loop.load import Load
from scripts.loop.policies import WARM_UP_PHASE, Phase
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Flight, Observer, Placement


def tell_virtually(
    load: Load,
    policies: Sequence[Phase],
    *,
    phase_s: float,
    seed: int,
    learning: LearningSettings,
    on_phase: Callable[[], None],
) -> dict[str, list[Flight]]:
    """By phase, what became of the requests. Each phase goes on with the models that those before it have learnt."""
    models: Models | None = None
    told = {}
    for phase, phase_seed in ((WARM_UP_PHASE, seed), *((policy, seed + 1) for policy in policies)):
        scenario = load.at(phase.share).scenario(phase_seed, phase_s)
        if phase.configuration is None:
            policy = HEURISTICS[phase.name](len(scenario.endpoints), phase_seed)
            told[phase.name] = _flown(scenario, policy, scenario.arrivals)
            on_phase()
            continue
        trainer = VirtualTrainer(learning, models)
        scheduler = load_scheduler(phase.configuration, os.environ)
        picker = Picker(len(scenario.endpoints), scheduler, scenario.hash_tokens, phase_seed, trainer)
        told[phase.name] = _flown(scenario, picker, scenario.arrivals, picker.scrape)
        models = trainer.models()
        on_phase()
    return told


@dataclass(frozen=True, slots=True)
class Placed:
    """Where somebody else has sent a request, and when."""

    arrival: Arrival
    endpoint: int


def fly_as_placed(scenario: Scenario, placed: Sequence[Placed]) -> list[Flight]:
    """What becomes of requests on engines in virtual time when each goes where it has gone before."""
    in_order = sorted((one.arrival for one in placed), key=lambda arrival: arrival.arrival_s)
    return _flown(scenario, _AsPlaced({one.arrival.index: one.endpoint for one in placed}), in_order)


class _AsPlaced:
    def __init__(self, endpoints: Mapping[int, int]) -> None:
        self._endpoints = endpoints

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        return Placement(self._endpoints[arrival.index])

    def first_token(self, flight: Flight, now_s: float) -> None: ...

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None: ...

    def ended(self, flight: Flight, now_s: float) -> None: ...


def _flown(
    scenario: Scenario,
    policy: Observer,
    arrivals: Sequence[Arrival],
    scrape: Callable[[Cluster, float], None] | None = None,
) -> list[Flight]:
    judge = Judge(policy)
    cluster = Cluster(scenario.endpoints, scenario.hash_tokens, judge)
    tick = (lambda now_s: scrape(cluster, now_s)) if scrape else None
    cluster.run(arrivals, scenario.changes, tick, SCRAPE_S)
    return judge.flights
