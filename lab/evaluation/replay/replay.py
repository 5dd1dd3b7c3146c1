"""One run in virtual time: a workload at a rate, placed by a policy."""

import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from epp.scheduling.configuration.config import load_scheduler
from lab.evaluation.plan import INFORMED, LLMD_DEFAULT, LLMD_PREDICTED, ORACLE, PREDICTING, SHEDDING_ORACLE
from lab.evaluation.policies.configurations import Weights, configurations
from lab.evaluation.policies.heuristics import HEURISTICS
from lab.evaluation.policies.lengths import expected_lengths
from lab.evaluation.policies.oracle import Oracle
from lab.evaluation.policies.picker import SCRAPE_S, Picker, Predicted
from lab.evaluation.policies.shared_pool import SharedPool
from lab.evaluation.replay.judging import Judge
from lab.evaluation.replay.learning import LearningSettings, Models, VirtualTrainer
from lab.evaluation.replay.misses import Misses
from lab.evaluation.replay.point import PointOptions, PointResult
from simulator.arrival import Scenario
from simulator.cluster import Cluster, Observer
from simulator.workloads import WORKLOADS
from trainer.settings import FitSettings, JobSettings

# A picker in virtual time logs as a real one does. Nobody waits for these lines.
logging.getLogger("headroom").addHandler(logging.NullHandler())

# Share of a run that fills the pool and isn't judged.
WARM_UP_SHARE = 0.2
LEARNING = LearningSettings(
    JobSettings(FitSettings(quantiles=(0.9, 0.5)), trainer_id="evaluation"), interval_s=10.0, min_new_rows=1000
)


class Prepared(msgspec.Struct, frozen=True):
    """The start of a workload's runs: weights tuned for it, and models that learnt from other traffic."""

    weights: Weights
    models: Models | None = None


def decode_prepared(data: bytes | None) -> Prepared:
    """Decode a preparation. Without data, return equal weights and no models."""
    return msgspec.msgpack.decode(data, type=Prepared) if data else Prepared((1, 1, 1))


@dataclass(frozen=True, slots=True)
class Run:
    """A policy for one run. `scrape` is called every `SCRAPE_S`, and None for a policy that reads no metrics."""

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
    """Make a run, and return its result. Raise ValueError for an unknown policy."""
    scenario = scenario_of(workload, requests_per_s, seed, seconds, options)
    run = run_of(policy, scenario, seed, decode_prepared(prepared))
    return replay(scenario, run, policy, requests_per_s, seed, until_decided=options.until_decided)


def replay(
    scenario: Scenario, run: Run, policy: str, requests_per_s: float, seed: int, *, until_decided: bool = False
) -> PointResult:
    began_at = time.perf_counter()
    begin_s = WARM_UP_SHARE * scenario.arrivals[-1].arrival_s
    judge, cluster = simulate(scenario, run, begin_s, until_decided=until_decided)
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


def simulate(
    scenario: Scenario, run: Run, begin_s: float = 0.0, *, until_decided: bool = False
) -> tuple[Judge, Cluster]:
    """Run a scenario. Return the judge with the requests' flights, and the pool that served them.

    With `until_decided`, the requests from `begin_s` on decide when to cut the run.
    """
    judge = Judge(run.policy, Misses(scenario.arrivals, begin_s))
    cluster = Cluster(scenario.endpoints, scenario.hash_tokens, judge)
    if isinstance(run.policy, Oracle | Picker | SharedPool):
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
    """Disable garbage collection during a run. It would take a third of the time and find almost no cycles."""
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
        return Run(Oracle(seed, expected_lengths(scenario.name)), None, {})
    texts = configurations(prepared.weights)
    if policy not in texts:
        expected = ", ".join([*HEURISTICS, *texts, INFORMED, ORACLE, SHEDDING_ORACLE])
        raise ValueError(f"no policy is called {policy!r}: expected {expected}")
    trainer = VirtualTrainer(learning, prepared.models) if policy in PREDICTING else None
    picker = Picker(
        endpoints,
        load_scheduler(texts[policy], os.environ),
        scenario.hash_tokens,
        seed,
        trainer,
        observes_all=policy in (LLMD_DEFAULT, LLMD_PREDICTED),  # as llm-d's picker does
    )
    last_s = scenario.arrivals[-1].arrival_s

    def scrape(cluster: Cluster, now_s: float) -> None:
        # Skip scrapes and fits after the last arrival: no request needs them, and fits take most of a run's time.
        if now_s <= last_s:
            picker.scrape(cluster, now_s)

    return Run(picker, scrape, picker.predicted, trainer)
