"""Attainments of a fixed seed, with intervals. A change of a policy's attainment must be entered here.

The seed decides everything. The intervals allow for other builds of libraries, which round differently and may turn one
decision in a hundred. Policies that learn have wider intervals: in a few seconds, each decision changes what they
learn, and a thousandth of a token's delay moves them that far.
"""

import math

import msgspec
import onnx
import pytest

from lab.evaluation.plan import OTHER_TRAFFIC, PREDICTING
from lab.evaluation.replay.point import PointOptions, PointResult
from lab.evaluation.replay.replay import Prepared, replay, run_of, run_point, scenario_of

SEED, SECONDS = 2, 12.0
RATES = {"azure-conversation": 98.0, "shared-prefix": 30.0}
# Half the width of an interval of attainment, without and with learning.
ROOM, LEARNERS_ROOM = 0.02, 0.06
ATTAINMENT = {
    "azure-conversation": {
        "round-robin": 0.912,
        "least-requests": 0.900,
        "least-tokens": 0.903,
        "p2c": 0.897,
        "default": 0.914,
        "closed-formula": 0.748,
        "reference": 0.857,
        "slo": 0.968,
        "slo-shedding": 0.954,
        "informed": 0.980,
        "oracle": 0.995,
    },
    "shared-prefix": {
        "round-robin": 0.731,
        "least-requests": 0.769,
        "default": 0.741,
        "tuned": 0.845,
        "closed-formula": 0.797,
        "reference": 0.717,
        "slo": 0.866,
        "slo-shedding": 0.903,
        "informed": 0.893,
        "oracle": 0.928,
    },
}
CASES = [(workload, policy) for workload, policies in ATTAINMENT.items() for policy in policies]


@pytest.fixture(scope="module")
def prepared() -> dict[str, bytes]:
    """Return models of 20 s of other traffic: few rows, which take little time."""
    return {workload: trained(workload) for workload in RATES}


def trained(workload: str) -> bytes:
    rate = RATES[workload]
    scenario = scenario_of(workload, rate, OTHER_TRAFFIC, 20.0)
    run = run_of("slo", scenario, OTHER_TRAFFIC, Prepared((1, 1, 1)))
    replay(scenario, run, "slo", rate, OTHER_TRAFFIC)
    assert run.trainer
    run.trainer.refit_if_due(math.inf)
    return msgspec.msgpack.encode(Prepared((1, 1, 3), run.trainer.models()))


def ran(workload: str, policy: str, prepared: bytes | None) -> PointResult:
    return run_point(workload, RATES[workload], SEED, policy, SECONDS, prepared, PointOptions())


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "policy"), CASES)
def test_a_policys_attainment_is_unchanged(workload: str, policy: str, prepared: dict[str, bytes]) -> None:
    room = LEARNERS_ROOM if policy in PREDICTING else ROOM
    assert ran(workload, policy, prepared[workload]).attainment == pytest.approx(ATTAINMENT[workload][policy], abs=room)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["p2c", "default", "slo", "oracle"])
def test_the_same_run_repeats_exactly(policy: str, prepared: dict[str, bytes]) -> None:
    """Only the wall times may differ."""
    once, again = (
        msgspec.structs.replace(
            ran("azure-conversation", policy, prepared["azure-conversation"]), decision_us=0, wall_s=0
        )
        for _ in range(2)
    )
    assert once == again


@pytest.mark.slow
def test_training_repeats_exactly(prepared: dict[str, bytes]) -> None:
    """Only the time that is written into each file may differ."""
    once, again = (
        msgspec.msgpack.decode(data, type=Prepared).models
        for data in (prepared["shared-prefix"], trained("shared-prefix"))
    )
    assert once
    assert again
    assert (once.features, once.ttft_ms, once.tpot_ms) == (again.features, again.ttft_ms, again.tpot_ms)
    for name in ("ttft", "tpot"):
        assert onnx.load_from_string(once.onnx[name]).graph == onnx.load_from_string(again.onnx[name]).graph
