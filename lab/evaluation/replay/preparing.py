"""The preparation of a workload before its runs: models that learn from other traffic, and tuned weights.

All seeds start from the same preparation. So intervals over seeds don't include the effect of other training.
"""

import math
from dataclasses import replace

import msgspec

from lab.evaluation.plan import OTHER_TRAFFIC, OURS, Preparation
from lab.evaluation.policies.configurations import TUNED_WEIGHTS, Weights
from lab.evaluation.replay.learning import Models
from lab.evaluation.replay.replay import LEARNING, Prepared, replay, run_of, scenario_of
from simulator.workloads import WORKLOADS

# Multiples of the typical rate at which models learn, in this order.
LOADS = (0.3, 0.6, 1.1, 0.85)
# Seconds of learning at each load. With a third of it, prediction quality depends on which requests happened to come.
LEARNING_S = 180.0
# Smallest number of requests at each load.
LEARNING_REQUESTS = 5000
# Longer intervals save time: models within these runs only place the requests of the next minutes.
_LEARNING = msgspec.structs.replace(LEARNING, interval_s=30.0)
_EVEN: Weights = (1, 1, 1)
# Multiples of the typical rate for tuning weights: loads at which weights make a difference.
TUNING_LOADS = (0.75, 0.95)
# Seconds of tuning at each load.
TUNING_S = 30.0


def prepare(workload: str, preparation: Preparation) -> bytes:
    """Return the encoded preparation with which every run of the workload starts."""
    weights = _tune_weights(workload) if preparation.tunes else _EVEN
    models = _learnt(workload, preparation.learning_s) if preparation.learning_s else None
    return msgspec.msgpack.encode(Prepared(weights, models))


def _learnt(workload: str, least_s: float) -> Models | None:
    """Return models that have learnt from some minutes of the workload.

    At first the picker places without models, then with the models learnt so far.
    """
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


def _tune_weights(workload: str) -> Weights:
    """Return the weights under which most requests meet their objectives."""
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
