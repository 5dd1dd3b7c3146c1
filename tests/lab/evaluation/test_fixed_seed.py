"""Attainments of fixed seeds, and the advantages of our policies. A change of either must be entered here.

`python -m tests.lab.evaluation.fixed_seed_tables` prints both tables anew, with what rounding does to the advantages.

The seeds decide everything but how the libraries of another build round. That may turn one decision in a hundred, so a
policy that doesn't learn keeps its attainment of the first seed within ROOM. Our policies move further, since each
decision changes what they learn. They are compared by their advantage over `default` on the same requests, averaged
over the seeds. The entries are those of the locked packages. Errors of a millionth in each prediction move the average
by a standard deviation of 0.006 on azure-conversation and of 0.004 to 0.016 on shared-prefix. A fifth of the advantage
is 0.017 and 0.043: losing a fifth fails, and rounding rarely does.
"""

import math
from functools import cache

import msgspec
import onnx
import pytest

from lab.evaluation.plan import OTHER_TRAFFIC
from lab.evaluation.replay.point import PointOptions, PointResult
from lab.evaluation.replay.replay import Prepared, replay, run_of, run_point, scenario_of

# In one worker, since a run is looked at by several tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fixed-seed")]

SECONDS = 12.0
SEEDS = {"azure-conversation": (2, 3, 4), "shared-prefix": (2, 3)}
# At these rates `default` misses some objectives, and policies differ by more than at lower rates.
RATES = {"azure-conversation": 106.0, "shared-prefix": 34.0}
# Seconds of other traffic that models are trained on: few rows, and quickly made.
TRAINING_S = {"azure-conversation": 20.0, "shared-prefix": 40.0}
# Half the width of an interval of attainment: of policies that don't learn, and of the one that does and isn't ours.
ROOM, REFERENCE_ROOM = 0.02, 0.06
# The share of its advantage that a policy of ours may neither lose nor win without an entry here.
SHARE = 0.2
ATTAINMENT = {
    "azure-conversation": {
        "round-robin": 0.850,
        "least-requests": 0.829,
        "least-tokens": 0.818,
        "p2c": 0.827,
        "default": 0.838,
        "closed-formula": 0.796,
        "reference": 0.818,
        "informed": 0.963,
        "oracle": 0.973,
    },
    "shared-prefix": {
        "round-robin": 0.623,
        "least-requests": 0.639,
        "default": 0.565,
        "tuned": 0.781,
        "closed-formula": 0.750,
        "reference": 0.654,
        "informed": 0.858,
        "oracle": 0.877,
    },
}
ADVANTAGE = {
    "azure-conversation": {"slo": 0.094, "slo-shedding": 0.102},
    "shared-prefix": {"slo": 0.195, "slo-shedding": 0.247},
}
CASES = [(workload, policy) for workload, policies in ATTAINMENT.items() for policy in policies]
OURS = [(workload, policy) for workload, policies in ADVANTAGE.items() for policy in policies]


@cache
def prepared(workload: str) -> bytes:
    return trained(workload)


def trained(workload: str) -> bytes:
    rate = RATES[workload]
    scenario = scenario_of(workload, rate, OTHER_TRAFFIC, TRAINING_S[workload])
    run = run_of("slo", scenario, OTHER_TRAFFIC, Prepared((1, 1, 1)))
    replay(scenario, run, "slo", rate, OTHER_TRAFFIC)
    assert run.trainer
    run.trainer.refit_if_due(math.inf)
    return msgspec.msgpack.encode(Prepared((1, 1, 3), run.trainer.models()))


def run(workload: str, policy: str, seed: int) -> PointResult:
    return run_point(workload, RATES[workload], seed, policy, SECONDS, prepared(workload), PointOptions())


run_once = cache(run)


def advantage(workload: str, policy: str) -> float:
    """Return a policy's attainment less that of `default` on the same requests, averaged over the seeds."""
    differences = [
        run_once(workload, policy, seed).attainment - run_once(workload, "default", seed).attainment
        for seed in SEEDS[workload]
    ]
    return sum(differences) / len(differences)


@pytest.mark.parametrize(("workload", "policy"), CASES)
def test_a_policy_keeps_its_attainment(workload: str, policy: str) -> None:
    room = REFERENCE_ROOM if policy == "reference" else ROOM
    expected = pytest.approx(ATTAINMENT[workload][policy], abs=room)
    assert run_once(workload, policy, SEEDS[workload][0]).attainment == expected


@pytest.mark.parametrize(("workload", "policy"), OURS)
def test_a_policy_of_ours_keeps_its_advantage(workload: str, policy: str) -> None:
    expected = ADVANTAGE[workload][policy]
    assert advantage(workload, policy) == pytest.approx(expected, rel=SHARE)


@pytest.mark.parametrize("policy", ["p2c", "default", "slo", "oracle"])
def test_the_same_run_twice_comes_to_the_same(policy: str) -> None:
    """But for what the machine's clock tells."""
    once, again = (
        msgspec.structs.replace(made("shared-prefix", policy, SEEDS["shared-prefix"][0]), decision_us=0, wall_s=0)
        for made in (run_once, run)
    )
    assert once == again


def test_training_twice_comes_to_the_same() -> None:
    """But for the time that is written into each file."""
    once, again = (
        msgspec.msgpack.decode(data, type=Prepared).models
        for data in (prepared("azure-conversation"), trained("azure-conversation"))
    )
    assert once
    assert again
    assert (once.features, once.ttft_ms, once.tpot_ms) == (again.features, again.ttft_ms, again.tpot_ms)
    for name in ("ttft", "tpot"):
        assert onnx.load_from_string(once.onnx[name]).graph == onnx.load_from_string(again.onnx[name]).graph
