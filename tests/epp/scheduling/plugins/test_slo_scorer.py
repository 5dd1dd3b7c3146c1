from collections import Counter

import numpy as np

from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Snapshot
from tests.epp.scheduling.snapshots import build_snapshot

EXACT = SloScorer(strategy="reference", sticky_epsilon=0.0)


def draws(scorer: SloScorer, request: Request, candidates: Snapshot, count: int = 300) -> Counter[int]:
    rng = np.random.default_rng(7)
    return Counter(int(scorer.score(request, candidates, rng).argmax()) for _ in range(count))


def request(ttft_ms: float | None = 500, tpot_ms: float | None = 50) -> Request:
    return Request("1", "m", slo_ttft_ms=ttft_ms, slo_tpot_ms=tpot_ms, prediction_based=True)


def test_only_endpoints_that_meet_both_objectives_are_drawn() -> None:
    candidates = build_snapshot(3, predicted=[(900, 20), (200, 20), (200, 90)])
    assert set(draws(EXACT, request(), candidates)) == {1}


def test_least_packs_and_most_spreads() -> None:
    candidates = build_snapshot(2, predicted=[(100, 10), (450, 45)])
    assert draws(EXACT, request(), candidates).most_common(1)[0][0] == 1
    most = SloScorer(strategy="reference", sticky_epsilon=0.0, headroom_selection_strategy="most")
    assert draws(most, request(), candidates).most_common(1)[0][0] == 0


def test_when_none_meets_them_idle_endpoints_come_first() -> None:
    candidates = build_snapshot(3, in_flight=[1, 0, 2], predicted=[(600, 60), (900, 90), (601, 60)])
    assert set(draws(EXACT, request(), candidates)) == {1}


def test_when_all_are_busy_the_smaller_miss_is_likelier() -> None:
    candidates = build_snapshot(2, in_flight=[1, 1], predicted=[(520, 52), (5000, 500)])
    assert draws(EXACT, request(), candidates)[0] > 250


def test_a_strict_request_in_flight_repels_others_that_would_slow_it() -> None:
    candidates = build_snapshot(2, tightest_tpot_slo_ms=[15, np.inf], predicted=[(100, 20), (100, 20)])
    assert set(draws(EXACT, request(), candidates)) == {1}


def test_a_missing_objective_constrains_nothing() -> None:
    candidates = build_snapshot(2, predicted=[(900, 20), (400, 5000)])
    assert set(draws(EXACT, request(tpot_ms=None), candidates)) == {1}
    assert set(draws(EXACT, request(ttft_ms=None), candidates)) == {0}


def test_without_any_objective_the_lower_latency_is_likelier() -> None:
    candidates = build_snapshot(2, in_flight=[1, 1], predicted=[(900, 90), (100, 10)])
    assert draws(EXACT, request(None, None), candidates)[1] > 250


def test_the_global_gate_keeps_a_cached_prefix_where_it_is() -> None:
    candidates = build_snapshot(2, prefix_score=[1.0, 0.0], predicted=[(400, 40), (100, 10)])
    assert set(draws(EXACT, request(), candidates)) == {0}


def test_exploration_leaves_the_positive_tier_now_and_then() -> None:
    candidates = build_snapshot(2, predicted=[(900, 90), (100, 10)])
    explored = draws(SloScorer(strategy="reference", sticky_epsilon=0.2), request(), candidates)[0]
    assert 30 < explored < 90


def test_a_missing_prediction_is_not_taken_to_meet_the_objectives() -> None:
    candidates = build_snapshot(2, predicted=[(np.nan, np.nan), (200, 20)])
    assert set(draws(EXACT, request(), candidates)) == {1}


def test_a_missing_prediction_is_rarer_than_the_greatest_miss() -> None:
    candidates = build_snapshot(3, in_flight=[1, 1, 1], predicted=[(np.nan, 20), (600, 60), (9000, 900)])
    counts = draws(EXACT, request(), candidates, 2000)
    assert 0 < counts[0] < counts[2] < counts[1]


def test_a_request_without_a_tpot_objective_heeds_the_strictest_in_flight() -> None:
    candidates = build_snapshot(2, tightest_tpot_slo_ms=[15, np.inf], predicted=[(100, 20), (100, 2000)])
    assert set(draws(EXACT, request(tpot_ms=None), candidates)) == {1}


def test_the_buffer_factor_scales_tpot_alone() -> None:
    candidates = build_snapshot(2, predicted=[(400, 45), (400, 10)])
    halving = SloScorer(strategy="reference", sticky_epsilon=0.0, slo_buffer_factor=0.5)
    assert set(draws(halving, request(), candidates)) == {1}
    assert set(draws(halving, request(tpot_ms=None), candidates)) == {0, 1}
