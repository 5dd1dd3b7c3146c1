"""What is done once for a workload before its runs: models learnt from other traffic, and weights tuned to it.

All seeds start from the same, so that intervals over seeds don't contain how other training would have come out.
"""

import math
from dataclasses import replace

import msgspec

from lab.evaluation.plan import OTHER_TRAFFIC, OURS, Preparation
from lab.evaluation.policies.configurations import TUNED_WEIGHTS, Weights
from lab.evaluation.replay.learning import Models
from lab.evaluation.replay.replay import LEARNING, Prepared, replay, run_of, scenario_of
from simulator.workloads import WORKLOADS

# Models have seen a pool at these multiples of the typical rate, in this order, for LEARNING_S, or until so many came.
# In a third of that, how well they predict depends on what they happened to see.
LOADS = (0.3, 0.6, 1.1, 0.85)
LEARNING_S = 180.0
LEARNING_REQUESTS = 5000
# What is learnt between the ends of these is only of use to place the requests of the next minutes.
_LEARNING = msgspec.structs.replace(LEARNING, interval_s=30.0)
_EVEN: Weights = (1, 1, 1)
# Weights are tuned under a load at which they make a difference.
TUNING_LOADS = (0.75, 0.95)
TUNING_S = 30.0


def prepare(workload: str, preparation: Preparation) -> bytes:
    """The start of every run of the workload."""
    weights = _tuned(workload) if preparation.tunes else _EVEN
    models = _learnt(workload, preparation.learning_s) if preparation.learning_s else None
    return msgspec.msgpack.encode(Prepared(weights, models))


def _learnt(workload: str, least_s: float) -> Models | None:
    """Models from some minutes of the workload, placed as the picker without models would, then by them."""
    prepared = Prepared(_EVEN)
    for index, load in enumerate(LOADS):
        rate, seed = WORKLOADS[workload].typical_rps * load, OTHER_TRAFFIC + index
        seconds = max(least_s, LEARNING_REQUESTS / rate * least_s / LEARNING_S)
        scenario = replace(scenario_of(workload, rate, seed, seconds), changes=())
        run = run_of(OURS, scenario, seed, prepared, _LEARNING)
        replay(scenario, run, OURS, rate, seed)
        if run.trainer:
            run.trainer.refit_if_due(math.inf)
            prepared = Prepared(prepared.weights, run.trainer.models())
    return prepared.models


def _tuned(workload: str) -> Weights:
    """Those under which most requests met their objectives."""
    attained: dict[Weights, float] = {}
    for weights in TUNED_WEIGHTS:
        attained[weights] = sum(
            _attained(workload, load, OTHER_TRAFFIC + index, Prepared(weights))
            for index, load in enumerate(TUNING_LOADS)
        )
    return max(attained, key=lambda weights: attained[weights])


def _attained(workload: str, load: float, seed: int, prepared: Prepared) -> float:
    rate = WORKLOADS[workload].typical_rps * load
    scenario = scenario_of(workload, rate, seed, TUNING_S)
    return replay(scenario, run_of("tuned", scenario, seed, prepared), "tuned", rate, seed).attainment
