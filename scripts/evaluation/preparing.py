"""What is done once for a workload before its runs: models learnt from other traffic, and weights tuned to it."""

from dataclasses import replace

import msgspec

from scripts.evaluation.configurations import TUNED_WEIGHTS, Weights
from scripts.evaluation.learning import Models
from scripts.evaluation.replay import Prepared, Run, replay, run_of, scenario_of
from simulator.workloads import WORKLOADS

# No run is judged on the traffic that its models or weights come from.
_OTHER_TRAFFIC = 1_000_000
# Models have seen a pool at these multiples of the typical rate, in this order, for so long.
_LOADS = (0.6, 1.1, 0.85)
_LEARNING_S = 60.0
# Weights are tuned under a load at which they make a difference.
_TUNING_LOADS = (0.75, 0.95)
_TUNING_S = 30.0


def prepare(workload: str, seed: int) -> bytes:
    """The start of every run of the workload and seed."""
    return msgspec.msgpack.encode(Prepared(_tuned(workload, seed), _learnt(workload, seed)))


def _learnt(workload: str, seed: int) -> Models | None:
    """Models from some minutes of the workload, placed as the picker without models would, then by them."""
    prepared = Prepared((1, 1, 1))
    for index, load in enumerate(_LOADS):
        run = _run(workload, load, seed + _OTHER_TRAFFIC + index, _LEARNING_S, "slo", prepared)
        if run.trainer:
            prepared = Prepared(prepared.weights, run.trainer.models())
    return prepared.models


def _tuned(workload: str, seed: int) -> Weights:
    """Those under which most requests met their objectives."""
    attained: dict[Weights, float] = {}
    for weights in TUNED_WEIGHTS:
        attained[weights] = sum(
            _attained(workload, load, seed + _OTHER_TRAFFIC + index, Prepared(weights))
            for index, load in enumerate(_TUNING_LOADS)
        )
    return max(attained, key=lambda weights: attained[weights])


def _attained(workload: str, load: float, seed: int, prepared: Prepared) -> float:
    rate = WORKLOADS[workload].typical_rps * load
    scenario = scenario_of(workload, rate, seed, _TUNING_S)
    return replay(scenario, run_of("tuned", scenario, seed, prepared), "tuned", rate, seed).attainment


def _run(workload: str, load: float, seed: int, seconds: float, policy: str, prepared: Prepared) -> Run:
    rate = WORKLOADS[workload].typical_rps * load
    scenario = replace(scenario_of(workload, rate, seed, seconds), changes=())
    run = run_of(policy, scenario, seed, prepared)
    replay(scenario, run, policy, rate, seed)
    return run
