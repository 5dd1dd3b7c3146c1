"""One run: a workload at a rate through a policy, in virtual time."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.plan import INFORMED, ORACLE, PREDICTING, SHEDDING_ORACLE
from lab.evaluation.policies.configurations import Weights, configurations
from lab.evaluation.policies.heuristics import HEURISTICS
from lab.evaluation.policies.lengths import expected_of
from lab.evaluation.policies.oracle import Oracle
from lab.evaluation.policies.picker import Picker, Predicted
from lab.evaluation.replay.judging import Judge
from lab.evaluation.replay.learning import LearningSettings, Models, VirtualTrainer
from lab.evaluation.replay.misses import Misses
from lab.evaluation.replay.point import PointOptions, PointResult
from simulator.arrival import Scenario
from simulator.cluster import Cluster, Observer
from simulator.workloads import WORKLOADS
from trainer.settings import FitSettings, JobSettings

# Both pickers' default; engines write their gauges once a step.
SCRAPE_S = 0.05
# The first part of a run fills the pool, and isn't judged.
WARM_UP_SHARE = 0.2
LEARNING = LearningSettings(
    JobSettings(FitSettings(quantiles=(0.9, 0.5)), trainer_id="evaluation"), interval_s=10.0, min_new_rows=1000
)


class Prepared(msgspec.Struct, frozen=True):
    """What the runs of a workload start from: weights that were tuned for it, and models learnt from other traffic."""

    weights: Weights
    models: Models | None = None


def prepared_of(data: bytes | None) -> Prepared:
    """What was prepared in another process; without anything, even weights and no models."""
    return msgspec.msgpack.decode(data, type=Prepared) if data else Prepared((1, 1, 1))


@dataclass(frozen=True, slots=True)
class Run:
    """A policy put to work; `scrape` is called twenty times a second of virtual time, where it reads metrics at all."""

    policy: Observer
    scrape: Callable[[Cluster, float], None] | None
    predicted: dict[int, Predicted]
    trainer: VirtualTrainer | None = None


def run_point(
    workload: str,
    requests_per_s: float,
    seed: int,
    policy: str,
    seconds: float,
    prepared: bytes | None,
    options: PointOptions,
) -> PointResult:
    """A run's result. ValueError for a policy that isn't known."""
    scenario = scenario_of(workload, requests_per_s, seed, seconds, options)
    run = run_of(policy, scenario, seed, prepared_of(prepared))
    return replay(scenario, run, policy, requests_per_s, seed, until_decided=options.until_decided)


def replay(
    scenario: Scenario, run: Run, policy: str, requests_per_s: float, seed: int, *, until_decided: bool = False
) -> PointResult:
    began_at = time.perf_counter()
    begin_s = WARM_UP_SHARE * scenario.arrivals[-1].arrival_s
    judge, cluster = played(scenario, run, begin_s, until_decided=until_decided)
    return judge.result(
        scenario,
        cluster,
        run.predicted,
        begin_s,
        policy=policy,
        requests_per_s=requests_per_s,
        seed=seed,
        wall_s=time.perf_counter() - began_at,
    )


def played(scenario: Scenario, run: Run, begin_s: float = 0.0, *, until_decided: bool = False) -> tuple[Judge, Cluster]:
    """What became of a run's requests, and the pool that served them; those from `begin_s` on decide when to cut it."""
    judge = Judge(run.policy, Misses(scenario.arrivals, begin_s))
    cluster = Cluster(scenario.endpoints, scenario.hash_tokens, judge)
    if isinstance(run.policy, Oracle | Picker):
        run.policy.attach(cluster)
    scrape = run.scrape
    with _no_collector():
        cluster.run(
            scenario.arrivals,
            scenario.changes,
            (lambda now_s: scrape(cluster, now_s)) if scrape else None,
            SCRAPE_S,
            judge.misses.decided if until_decided else None,
        )
    return judge, cluster


@contextmanager
def _no_collector() -> Iterator[None]:
    """Next to nothing that a run makes refers to itself, and looking through it again and again takes a third of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def scenario_of(
    workload: str, requests_per_s: float, seed: int, seconds: float, options: PointOptions | None = None
) -> Scenario:
    scenario = WORKLOADS[workload].scenario(requests_per_s, seed, seconds)
    if options is None or options.endpoints is None:
        return scenario
    pool = scenario.endpoints
    endpoints = tuple(pool[index % len(pool)] for index in range(options.endpoints))
    return Scenario(scenario.name, scenario.arrivals, endpoints, scenario.hash_tokens, scenario.changes)


def run_of(
    policy: str, scenario: Scenario, seed: int, prepared: Prepared, learning: LearningSettings = LEARNING
) -> Run:
    endpoints = len(scenario.endpoints)
    if policy in HEURISTICS:
        return Run(HEURISTICS[policy](endpoints, seed), None, {})
    if policy in (ORACLE, SHEDDING_ORACLE):
        return Run(Oracle(seed, sheds=policy == SHEDDING_ORACLE), None, {})
    if policy == INFORMED:
        return Run(Oracle(seed, expected_of(scenario.name)), None, {})
    texts = configurations(prepared.weights)
    if policy not in texts:
        expected = ", ".join([*HEURISTICS, *texts, INFORMED, ORACLE, SHEDDING_ORACLE])
        raise ValueError(f"no policy is called {policy!r}: expected {expected}")
    trainer = VirtualTrainer(learning, prepared.models) if policy in PREDICTING else None
    picker = Picker(endpoints, load_scheduler(texts[policy], os.environ), scenario.hash_tokens, seed, trainer)
    last_s = scenario.arrivals[-1].arrival_s

    def scrape(cluster: Cluster, now_s: float) -> None:
        # What is read, and learnt, after the last request would serve nobody; fits are most of what a run costs.
        if now_s <= last_s:
            picker.scrape(cluster, now_s)

    return Run(picker, scrape, picker.predicted, trainer)
