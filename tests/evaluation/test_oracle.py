from scripts.evaluation.oracle import Oracle
from scripts.evaluation.point import PointOptions
from scripts.evaluation.replay import Run, replay, run_point
from simulator.arrival import Arrival, Scenario
from simulator.hardware import hardware
from simulator.workloads import WORKLOADS

H100, L40S = hardware("h100-llama-3.1-8b"), hardware("l40s-llama-3.1-8b")


def test_no_heuristic_is_better() -> None:
    rate = 0.85 * WORKLOADS["heterogeneous"].typical_rps
    attained = {
        policy: run_point("heterogeneous", rate, 1, policy, 15.0, None, PointOptions()).attainment
        for policy in ("least-requests", "p2c", "oracle")
    }
    assert attained["oracle"] > 0.97 > 0.9 > max(attained["least-requests"], attained["p2c"])


def test_who_asks_for_little_is_left_to_the_slow_and_the_full() -> None:
    """TPOT of 30 ms can be had on both; of 12 ms on the H100 alone, and only while few others are there."""
    arrivals = tuple(
        Arrival(index, index * 0.05, 400, 100, (), *(("tight", 500.0, 12.0) if index % 2 else ("loose", 2000.0, 60.0)))
        for index in range(100)
    )
    scenario = Scenario("pair", arrivals, (H100, L40S), 16)
    oracle = Oracle(1)
    result = replay(scenario, Run(oracle, None, {}), "oracle", 20.0, 1)
    assert result.attainment_by_class == {"loose": 1.0, "tight": 1.0}
