"""The worth of fresh metrics: goodput by the time between two scrapes, beside the CPU that scrapes cost the servers.

A picker knows its own requests between two scrapes. It learns from metrics alone what others send to the pool. So the
study has three kinds of traffic: all through one picker, through two pickers that know nothing of each other, and a
fifth of it from clients that send directly, for seconds on end to the same endpoint.
"""

import math
import os
from collections.abc import Sequence

import msgspec

from epp.scheduling.configuration.config import load_scheduler
from epp.scraping.pace import ScrapeInterval
from lab.evaluation.plan import OTHER_TRAFFIC, OURS, PREDICTING
from lab.evaluation.policies.configurations import configurations
from lab.evaluation.policies.heuristics import Heuristic
from lab.evaluation.policies.picker import Picker
from lab.evaluation.policies.shared_pool import SharedPool
from lab.evaluation.replay.learning import VirtualTrainer
from lab.evaluation.replay.replay import (
    LEARNING,
    WARM_UP_SHARE,
    Prepared,
    Run,
    decode_prepared,
    replay,
    run_of,
    scenario_of,
    simulate,
)
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Flight, Observer, Placement
from simulator.workloads import WORKLOADS

# CPU time of a server for one page of metrics, in s: vLLM 0.32.0 on one core of an AMD EPYC, a page of 61 kB.
PAGE_CPU_S = 0.014
INTERVALS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ALONE, TWO_PICKERS, DIRECT = "one picker", "two pickers", "a fifth directly"
TRAFFIC = (ALONE, TWO_PICKERS, DIRECT)
# One request in DIRECT_OF goes directly to a server. All direct requests go to one server for DIRECT_S seconds.
DIRECT_OF, DIRECT_S = 5, 5.0
# Requests/s: a tenth above the common loads of the evaluation, so that policies miss some objectives.
LOADS_RPS = {"azure-conversation": 101.0, "shared-prefix": 27.0}
# Models learn at this multiple of the typical rate, from so many s of traffic and so many requests.
LEARNING_LOAD, LEARNING_S, LEARNING_REQUESTS = 0.85, 120.0, 5000


class FreshnessCase(msgspec.Struct, frozen=True):
    """One case of the study."""

    workload: str
    policy: str
    traffic: str
    interval: ScrapeInterval
    seed: int


class Freshness(msgspec.Struct, frozen=True):
    """The requests/s that met all objectives, and the pages that each endpoint served a second to all pickers."""

    case: FreshnessCase
    goodput_rps: float
    pages_per_s: float


class _Direct(Heuristic):
    """Clients that send past the picker: for some seconds all to one endpoint, then to the next."""

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        return Placement(int(now_s / DIRECT_S) % len(self.requests))

    def ended(self, flight: Flight, now_s: float) -> None: ...


def prepare_models(workload: str) -> bytes:
    """Return models that have learnt from other traffic of the workload, with fresh metrics."""
    rate = WORKLOADS[workload].typical_rps * LEARNING_LOAD
    scenario = scenario_of(workload, rate, OTHER_TRAFFIC, max(LEARNING_S, LEARNING_REQUESTS / rate))
    run = run_of(OURS, scenario, OTHER_TRAFFIC, Prepared((1, 1, 1)))
    replay(scenario, run, OURS, rate, OTHER_TRAFFIC)
    assert run.trainer, "the policy predicts"
    run.trainer.refit_if_due(math.inf)
    return msgspec.msgpack.encode(Prepared((1, 1, 1), run.trainer.models()))


def measure(case: FreshnessCase, prepared: bytes | None, requests: int) -> Freshness:
    """Run a case with so many requests."""
    rate = LOADS_RPS[case.workload]
    scenario = scenario_of(case.workload, rate, case.seed, requests / rate)
    models = decode_prepared(prepared).models
    trainer = VirtualTrainer(LEARNING, models) if case.policy in PREDICTING else None
    pickers, senders = _senders(case, scenario, trainer)
    last_s = scenario.arrivals[-1].arrival_s

    def scrape(cluster: Cluster, now_s: float) -> None:
        for picker in pickers if now_s <= last_s else ():
            picker.scrape(cluster, now_s)

    judge, _ = simulate(scenario, Run(SharedPool(senders), scrape, {}, trainer), WARM_UP_SHARE * last_s)
    pages = sum(picker.pages for picker in pickers)
    return Freshness(case, judge.misses.at_most * rate, pages / len(scenario.endpoints) / last_s)


def _senders(
    case: FreshnessCase, scenario: Scenario, trainer: VirtualTrainer | None
) -> tuple[Sequence[Picker], Sequence[Observer]]:
    """Return the pickers that share the pool, and the senders of the requests in turn."""
    scheduler = load_scheduler(configurations((1, 1, 1))[case.policy], os.environ)
    endpoints = len(scenario.endpoints)
    pickers = [
        Picker(endpoints, scheduler, scenario.hash_tokens, case.seed + number, trainer, interval=case.interval)
        for number in range(2 if case.traffic == TWO_PICKERS else 1)
    ]
    if case.traffic == DIRECT:
        return pickers, [*pickers * (DIRECT_OF - 1), _Direct(endpoints, case.seed)]
    return pickers, pickers
