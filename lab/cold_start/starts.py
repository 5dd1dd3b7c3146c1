"""How predictions begin: runs in virtual time that start with no models, with kept ones, or with wrong ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec

from lab.evaluation.plan import BASE, OTHER_TRAFFIC, OURS
from lab.evaluation.policies.heuristics import RoundRobin
from lab.evaluation.policies.picker import Predicted
from lab.evaluation.policies.shared_pool import SharedPool
from lab.evaluation.replay.learning import LearningSettings, Models
from lab.evaluation.replay.replay import LEARNING, Prepared, Run, run_of, simulate
from simulator.arrival import Scenario
from simulator.cluster import Cluster, Flight
from simulator.workloads import WORKLOADS
from simulator.workloads.workload import Workload

# Ends of the ranges of requests, in the order of their arrival.
ENDS: Final = (50, 100, 200, 500, 1000, 2000)
# Requests that round-robin has placed when a policy starts, by the name of the pool. The answers of the longest last
# as long as all of these take to arrive.
POOLS: Final[Mapping[str, int]] = {"empty": 0, "serving": 2_000}
# Seconds before its first request from which on a policy reads metrics.
_HEAD_START_S = 1.0
# As the trainer's defaults: it fits once a second if there is any new row.
SETTINGS: Final[LearningSettings] = msgspec.structs.replace(LEARNING, interval_s=1.0, min_new_rows=1)
# Training passes before the start: most of the time goes to them.
_EARLIER_PASSES = 4
# Requests before the start, for models that a store has kept or that are wrong.
_EARLIER = 2_000
_WEIGHTS = (1.0, 1.0, 1.0)


class StartResult(msgspec.Struct, frozen=True):
    """One start with one seed. Ranges are those between ENDS; errors are in percent, None without predictions.

    `predicted_from` is the number of the first request with predictions and `predicted_from_s` its arrival, both from
    the start on.
    """

    pool: str
    start: str
    seed: int
    predicted_from: int | None
    predicted_from_s: float | None
    ttft_mdape: list[float | None]
    tpot_mdape: list[float | None]
    attainment: list[float]
    base_attainment: list[float]


@dataclass(frozen=True, slots=True)
class Trial:
    """The traffic of all starts: a workload at a multiple of its typical rate."""

    workload: Workload
    load: float

    def scenario(self, seed: int, requests: int = ENDS[-1]) -> Scenario:
        rate = self.load * self.workload.typical_rps
        drawn = self.workload.scenario(rate, seed, 1.2 * requests / rate)
        return replace(drawn, arrivals=drawn.arrivals[:requests], changes=())


def _nothing(trial: Trial) -> Models | None:
    return None


def _kept(trial: Trial) -> Models | None:
    """Return the models of a trainer that has served the same traffic before."""
    return learn(trial)


def _other_version(trial: Trial) -> Models | None:
    """Return the models of a pool that ran slower hardware: after an upgrade they are wrong at first."""
    return learn(replace(trial, workload=trial.workload.on(*(_SLOWER[name] for name in trial.workload.pool))))


def _seeded(trial: Trial) -> Models | None:
    """Return models of a simulated twin of the pool, under traffic that is not like the pool's."""
    return learn(replace(trial, workload=replace(WORKLOADS["poisson"], pool=trial.workload.pool)))


_SLOWER = {
    "fast": "slow",
    "slow": "slow",
    "h100-llama-3.1-8b": "a100-llama-3.1-8b",
    "a100-llama-3.1-8b": "l40s-llama-3.1-8b",
    "l40s-llama-3.1-8b": "l40s-llama-3.1-8b",
}
STARTS: Final[Mapping[str, Callable[[Trial], Models | None]]] = {
    "no models": _nothing,
    "kept models": _kept,
    "models of slower servers": _other_version,
    "models of a simulated twin": _seeded,
}


def measure_all(workload: str, load: float, pool: str, start: str, seeds: int) -> list[StartResult]:
    """Measure a start with each seed."""
    trial = Trial(WORKLOADS[workload], load)
    models = STARTS[start](trial)
    return [measure(trial, pool, start, models, seed) for seed in range(seeds)]


def measure(trial: Trial, pool: str, start: str, models: Models | None, seed: int) -> StartResult:
    """Run a start under our policy and, with the same requests, under the base policy."""
    served = POOLS[pool]
    scenario = trial.scenario(seed, served + ENDS[-1])
    run = run_of(OURS, scenario, seed, Prepared(_WEIGHTS, models), SETTINGS)
    flights = _flights(scenario, _begin_after(served, scenario, run, seed))[served:]
    base = run_of(BASE, scenario, seed, Prepared(_WEIGHTS))
    others = _flights(scenario, _begin_after(served, scenario, base, seed))[served:]
    first = min(run.predicted, default=None)
    begin_s = scenario.arrivals[served].arrival_s
    return StartResult(
        pool=pool,
        start=start,
        seed=seed,
        predicted_from=None if first is None else first - served + 1,
        predicted_from_s=None if first is None else scenario.arrivals[first].arrival_s - begin_s,
        ttft_mdape=[_error(part, run.predicted, "ttft") for part in _ranges(flights)],
        tpot_mdape=[_error(part, run.predicted, "tpot") for part in _ranges(flights)],
        attainment=[_attained(part) for part in _ranges(flights)],
        base_attainment=[_attained(part) for part in _ranges(others)],
    )


def _begin_after(served: int, scenario: Scenario, run: Run, seed: int) -> Sequence[Flight]:
    """Run a policy that starts when round-robin has placed `served` requests, and doesn't know them."""
    earlier = RoundRobin(len(scenario.endpoints), seed)
    policy = SharedPool((earlier, run.policy), lambda index: int(index >= served))
    begin_s = scenario.arrivals[served].arrival_s - _HEAD_START_S
    read = run.scrape

    def scrape(cluster: Cluster, now_s: float) -> None:
        if read is not None and now_s >= begin_s:
            read(cluster, now_s)

    return simulate(scenario, replace(run, policy=policy, scrape=scrape))[0].flights


def learn(trial: Trial, requests: int = _EARLIER, models: Models | None = None) -> Models | None:
    """Return the models after earlier traffic, placed by our policy while they were learnt. They may go on from some.

    None if there were too few requests for a model.
    """
    scenario = trial.scenario(OTHER_TRAFFIC, requests)
    interval_s = scenario.arrivals[-1].arrival_s / _EARLIER_PASSES
    settings = msgspec.structs.replace(LEARNING, interval_s=interval_s, min_new_rows=100)
    run = run_of(OURS, scenario, OTHER_TRAFFIC, Prepared(_WEIGHTS, models), settings)
    simulate(scenario, run)
    if run.trainer is None:
        return None
    run.trainer.refit_if_due(float("inf"))
    return run.trainer.models()


def _flights(scenario: Scenario, ended: Sequence[Flight]) -> list[Flight | None]:
    """Return the requests' flights in the order of arrival; None for one that was shed."""
    by_index = {flight.arrival.index: flight for flight in ended}
    return [by_index.get(arrival.index) for arrival in scenario.arrivals]


def _ranges(flights: Sequence[Flight | None]) -> list[Sequence[Flight | None]]:
    return [flights[begin:end] for begin, end in pairwise((0, *ENDS))]


def _attained(flights: Sequence[Flight | None]) -> float:
    return sum(flight is not None and flight.met for flight in flights) / len(flights)


def _error(flights: Sequence[Flight | None], predicted: Mapping[int, Predicted], latency: str) -> float | None:
    errors = [
        100
        * abs(getattr(predicted[flight.arrival.index], f"{latency}_median_ms") / getattr(flight, f"{latency}_ms") - 1)
        for flight in flights
        if flight is not None and flight.arrival.index in predicted and flight.arrival.output_tokens > 1
    ]
    return median(errors) if errors else None
