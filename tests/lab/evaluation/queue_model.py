"""A model in place of the simulator: the attainment of an M/M/1 queue, with noise by seed."""

import math
import random
from dataclasses import dataclass

from lab.evaluation.plan import Preparation
from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.replay.point import PointOptions, PointResult
from lab.evaluation.studies.noise_floor import Floor, StateAwareErrors, TpotBounds
from lab.evaluation.studies.quality import Quality, TargetQuality
from simulator.workloads.objectives import SloMultiple

SERVICE_RPS = 20.0
QUALITY = {
    "random": 0.7,
    "round-robin": 0.8,
    "default": 1.0,
    "tuned": 1.2,
    "llmd-default": 1.1,
    "slo": 1.5,
    "slo-shedding": 1.7,
    "oracle": 1.6,
    "oracle-shedding": 1.8,
}


@dataclass(frozen=True)
class Queue:
    description: str = "Requests of a queue."
    typical_rps: float = 10.0
    mix: tuple[SloMultiple, ...] = (
        SloMultiple("tight", 0.3, ttft=5, tpot=2),
        SloMultiple("loose", 0.7, ttft=25, tpot=6),
    )


def prepare(workload: str, preparation: Preparation | None = None) -> bytes:
    return workload.encode()


def judge_rows(workload: str, prepared: bytes | None) -> list[TargetQuality]:
    assert prepared == prepare(workload)
    models = (Quality("ours", 0.08, 0.2, 0.02, 0.9, 0.0), Quality("reference", 0.16, 0.3, 0.04, 0.85, 0.1))
    floor = Floor("neighbours 50 rows apart", 0.05, 0.01, 0.06, 1000)
    return [TargetQuality("ttft", 0.9, 700, 300, models, floor), TargetQuality("tpot", 0.9, 700, 300, models, None)]


def tpot_bounds(workload: str, requests_per_s: float, prepared: bytes | None) -> TpotBounds:
    assert prepared == prepare(workload)
    noise = 0.02 if workload == "halving" else 0.03
    return TpotBounds(Floor("repeats", noise, 0.01, 0.04, 100), StateAwareErrors(0.045, noise + 0.01, 300))


def attainment(rate: float, policy: str) -> float:
    """Return the share of requests that wait less than a second. The policy's quality scales the service rate."""
    spare = SERVICE_RPS * QUALITY[policy] - rate
    return 1 - math.exp(-spare) if spare > 0 else 0.0


def run_point(
    workload: str,
    requests_per_s: float,
    seed: int,
    policy: str,
    seconds: float,
    prepared: bytes | None,
    options: PointOptions,
) -> PointResult:
    if options.endpoints is None:
        assert prepared == prepare(workload)
    noise = random.Random(f"{workload} {requests_per_s} {seed}").uniform(-0.002, 0.002)
    met = min(1.0, max(0.0, attainment(requests_per_s, policy) + noise))
    is_cut = options.until_decided and met < LEAST_ATTAINMENT
    latency = 100 / QUALITY[policy]
    percentiles = {f"p{p}": latency * p / 50 for p in (50, 90, 95, 99)}
    predicts = policy == "slo"
    bins = [(10.0 * n, 30.0 if 60 <= 10 * n < 80 else 8.0, 4.0, 90.0) for n in range(12)]
    return PointResult(
        workload=workload,
        policy=policy,
        requests_per_s=requests_per_s,
        seed=seed,
        requests=int(requests_per_s * seconds),
        attainment=LEAST_ATTAINMENT - 0.001 if is_cut else met,
        attainment_by_class={"tight": met**2, "loose": met},
        goodput_rps=met * requests_per_s,
        ttft_ms=percentiles,
        tpot_ms=percentiles,
        e2e_ms=percentiles,
        throughput_tokens_per_s=100 * requests_per_s,
        fairness=0.99,
        cached_share=0.5,
        preemptions=0,
        decision_us=20.0,
        wall_s=0.01,
        ttft_mdape=8.0 if predicts else None,
        tpot_mdape=4.0 if predicts else None,
        coverage_q90=90.0 if predicts else None,
        errors_over_time=bins if predicts else [],
        is_cut=is_cut,
    )
