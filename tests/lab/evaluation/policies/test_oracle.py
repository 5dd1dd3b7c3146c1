from dataclasses import replace

import pytest

from lab.evaluation.policies.lengths import Lengths, expected_by, known_length
from lab.evaluation.policies.oracle import Oracle
from lab.evaluation.replay.point import PointOptions
from lab.evaluation.replay.replay import Run, replay, run_point
from lab.evaluation.studies.bounds import p50_bounds
from simulator.arrival import Arrival, Scenario
from simulator.cluster import Cluster, Placement
from simulator.hardware import hardware
from simulator.workloads import WORKLOADS

H100, L40S = hardware("h100-llama-3.1-8b"), hardware("l40s-llama-3.1-8b")


def test_the_oracle_beats_heuristics() -> None:
    rate = 0.85 * WORKLOADS["heterogeneous"].typical_rps
    attained = {
        policy: run_point("heterogeneous", rate, 1, policy, 15.0, None, PointOptions()).attainment
        for policy in ("least-requests", "p2c", "oracle")
    }
    assert attained["oracle"] > 0.97 > 0.9 > max(attained["least-requests"], attained["p2c"])


def test_undemanding_requests_go_to_slow_and_full_endpoints() -> None:
    """Both endpoints can meet a TPOT of 60 ms. Only the H100 can meet 12 ms, and only with few other requests."""
    arrivals = tuple(
        Arrival(index, index * 0.05, 400, 100, (), *(("tight", 500.0, 12.0) if index % 2 else ("loose", 2000.0, 60.0)))
        for index in range(100)
    )
    scenario = Scenario("pair", arrivals, (H100, L40S), 16)
    oracle = Oracle(1)
    result = replay(scenario, Run(oracle, None, {}), "oracle", 20.0, 1)
    assert result.attainment_by_class == {"loose": 1.0, "tight": 1.0}


@pytest.mark.slow
def test_the_informed_policy_lies_between_round_robin_and_the_oracle() -> None:
    rate = WORKLOADS["azure-conversation"].typical_rps
    attained = {
        policy: run_point("azure-conversation", rate, 1, policy, 15.0, None, PointOptions()).attainment
        for policy in ("round-robin", "informed", "oracle")
    }
    assert attained["oracle"] > attained["informed"] > attained["round-robin"] + 0.05


@pytest.mark.slow
def test_shedding_meets_more_objectives_under_overload() -> None:
    rate = 1.3 * WORKLOADS["azure-conversation"].typical_rps
    serving, shedding = (
        run_point("azure-conversation", rate, 1, policy, 15.0, None, PointOptions())
        for policy in ("oracle", "oracle-shedding")
    )
    assert serving.shed == 0 < shedding.shed
    assert shedding.attainment > serving.attainment + 0.05


def test_quickest_is_faster_than_all_other_policies() -> None:
    workload = WORKLOADS["shared-prefix"]
    bounds = p50_bounds("shared-prefix", 0.5 * workload.typical_rps, 1, 15.0)
    others = [
        run_point("shared-prefix", 0.5 * workload.typical_rps, 1, policy, 15.0, None, PointOptions()).e2e_ms["p50"]
        for policy in ("least-requests", "default", "tuned", "oracle")
    ]
    assert bounds.least_ms < bounds.quickest_ms < min(others)


class Recorded(Oracle):
    def __init__(self, lengths: Lengths) -> None:
        super().__init__(1, lengths)
        self.endpoints: list[int] = []

    def place(self, arrival: Arrival, now_s: float) -> Placement:
        placement = super().place(arrival, now_s)
        assert placement
        self.endpoints.append(placement.endpoint)
        return placement


def endpoints_of(arrivals: list[Arrival], lengths: Lengths) -> list[int]:
    policy = Recorded(lengths)
    cluster = Cluster((H100, L40S), 16, policy)
    policy.attach(cluster)
    cluster.run(arrivals)
    return policy.endpoints


def test_expected_lengths_ignore_the_true_ones() -> None:
    """The two sets of answers differ only in length, and no answer ends while requests come."""
    some = [
        Arrival(index, index * 0.02, 400, 400 + 37 * index % 300, (), "normal", 500.0, 12.0 if index % 2 else 60.0)
        for index in range(100)
    ]
    others = [replace(one, output_tokens=3000 - 3 * one.output_tokens) for one in some]
    lengths = expected_by([100, 300, 500])
    placed = endpoints_of(some, lengths)
    assert set(placed) == {0, 1}
    assert endpoints_of(others, lengths) == placed
    assert endpoints_of(others, known_length) != endpoints_of(some, known_length)


@pytest.mark.parametrize(("generated", "length"), [(0, 50), (9, 50), (10, 70), (39, 70), (40, 100), (99, 100)])
def test_the_expected_length_grows_with_the_answer(generated: int, length: int) -> None:
    assert expected_by([100, 10, 40])(7, generated) == length


def test_an_answer_longer_than_all_known_ones_is_expected_to_end() -> None:
    assert expected_by([100, 10, 40])(7, 100) == 101
    assert expected_by([100, 10, 40])(7, 4000) == 4001
