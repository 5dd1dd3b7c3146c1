"""llm-d's predicted-latency plugins against their formulas, written down once more for one endpoint at a time."""

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.scheduling.plugins.latency import LatencyScorer, PredictedLatencyProducer, SloHeadroomTierFilter
from epp.scheduling.plugins.prefix import PrefixCacheAffinityFilter
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Snapshot
from tests.epp.scheduling.plugins.test_slo_reference import latencies, objectives, snapshots
from tests.epp.scheduling.snapshots import build_snapshot

RNG = np.random.default_rng(3)
INF = math.inf


def request(ttft_ms: float | None = 500, tpot_ms: float | None = 50) -> Request:
    return Request("1", "m", slo_ttft_ms=ttft_ms, slo_tpot_ms=tpot_ms)


def rooms(asked: Request, candidates: Snapshot) -> list[tuple[float, float]]:
    """TTFT and TPOT headroom of each endpoint: inf where nothing is asked, NaN where nothing is known."""
    assert candidates.predictions is not None
    room = []
    for index in range(len(candidates)):
        ttft, tpot = float(candidates.predictions.ttft_ms[index]), float(candidates.predictions.tpot_ms[index])
        limit = min(
            INF if asked.slo_tpot_ms is None else asked.slo_tpot_ms, float(candidates.tightest_tpot_slo_ms[index])
        )
        if asked.slo_ttft_ms is None and asked.slo_tpot_ms is None:
            room.append((-ttft, -tpot))
        else:
            ttft_room = INF if asked.slo_ttft_ms is None else asked.slo_ttft_ms - ttft
            room.append((ttft_room, INF if limit == INF else limit - tpot))
    return room


def reference_scores(scorer: LatencyScorer, asked: Request, candidates: Snapshot) -> list[float]:
    room = rooms(asked, candidates)
    known = [i for i, (g, h) in enumerate(room) if not (math.isnan(g) or math.isnan(h))]
    scores = [0.0] * len(room)
    meeting = [i for i in known if room[i][0] >= 0 and room[i][1] >= 0]
    if meeting:
        values = within(scorer, [room[i][0] for i in meeting], [room[i][1] for i in meeting])
        for i, combined in zip(meeting, values, strict=True):
            share = combined if scorer.headroom_selection_strategy == "most" else 1 - combined
            scores[i] = min((int(share * 100) + 1) / 100, 1.0)
        return scores
    tpot_alone = [i for i in known if room[i][0] >= 0 > room[i][1]]
    ttft_alone = [i for i in known if room[i][1] >= 0 > room[i][0]]
    chosen = [i for i in known if candidates.in_flight[i] == 0] or tpot_alone or ttft_alone or known
    ttft, tpot = ([0.0 if room[i][column] == INF else abs(room[i][column]) for i in chosen] for column in (0, 1))
    for i, combined in zip(chosen, within(scorer, ttft, tpot), strict=True):
        scores[i] = min((int((1 - combined) * 100) + 1) / 100, 1.0)
    return scores


def within(scorer: LatencyScorer, ttft: Sequence[float], tpot: Sequence[float]) -> list[float]:
    columns = [(scaled(ttft), scorer.ttft_weight), (scaled(tpot), scorer.tpot_weight)]
    telling = [(values, weight) for values, weight in columns if values is not None]
    total = sum(weight for _, weight in telling)
    if not telling:
        return [0.5] * len(ttft)
    if total == 0:
        return telling[0][0]
    return [sum(weight * values[i] for values, weight in telling) / total for i in range(len(ttft))]


def scaled(values: Sequence[float]) -> list[float] | None:
    finite = [value for value in values if value < INF]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if high - low <= 1e-9:
        return None if len(finite) == len(values) else [float(value == INF) for value in values]
    return [1.0 if value == INF else (value - low) / (high - low) for value in values]


scorers = st.builds(
    LatencyScorer,
    ttft_weight=st.sampled_from([0.0, 0.2, 0.8, 3.0]),
    tpot_weight=st.sampled_from([0.0, 0.2, 0.8, 3.0]),
    headroom_selection_strategy=st.sampled_from(["least", "most"]),
)


def test_an_endpoint_that_would_never_answer_scores_least() -> None:
    candidates = build_snapshot(2, predicted=[(10.0, 10.0), (10.0, INF)])
    near, never = LatencyScorer().score(request(None, None), candidates, RNG)
    assert near > never


@settings(max_examples=150)
@given(scorer=scorers, candidates=snapshots(), ttft=objectives, tpot=objectives)
def test_latency_scores_are_those_of_the_formulas(
    scorer: LatencyScorer, candidates: Snapshot, ttft: float | None, tpot: float | None
) -> None:
    asked = request(ttft, tpot)
    if all(math.isnan(g) or math.isnan(h) for g, h in rooms(asked, candidates)):
        return
    assert scorer.score(asked, candidates, RNG).tolist() == pytest.approx(
        reference_scores(scorer, asked, candidates), abs=1e-9
    )


@settings(max_examples=100)
@given(candidates=snapshots(), ttft=objectives, tpot=objectives)
def test_the_tier_filter_keeps_endpoints_that_meet_the_objectives_unless_it_explores(
    candidates: Snapshot, ttft: float | None, tpot: float | None
) -> None:
    asked = request(ttft, tpot)
    meeting = [g >= 0 and h >= 0 for g, h in rooms(asked, candidates)]
    alike = len(set(meeting)) == 1
    kept = SloHeadroomTierFilter(epsilon_explore_neg=0.0).keep(asked, candidates, RNG).tolist()
    explored = SloHeadroomTierFilter(epsilon_explore_neg=1.0).keep(asked, candidates, RNG).tolist()
    assert kept == ([True] * len(candidates) if alike else meeting)
    assert explored == ([True] * len(candidates) if alike else [not meets for meets in meeting])


@settings(max_examples=100)
@given(
    data=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 0.8, 1.0]), latencies, st.floats(0, 1e6)), min_size=1, max_size=9
    ),
    source=st.sampled_from(["prefillThroughput", "latencyPredictor"]),
    penalty=st.sampled_from([0.0, 30.0, 5000.0]),
)
def test_the_affinity_filter_sticks_unless_that_is_too_slow(
    data: list[tuple[float, float, float]], source: str, penalty: float
) -> None:
    prefix, ttft, tokens = (list(column) for column in zip(*data, strict=True))
    candidates = build_snapshot(
        len(data), prefix_score=prefix, prefill_tokens=tokens, predicted=[(value, 1.0) for value in ttft]
    )
    plugin = PrefixCacheAffinityFilter(
        max_ttft_penalty_ms=penalty,
        ttft_source="prefillThroughput" if source == "prefillThroughput" else "latencyPredictor",
    )
    costs = ttft if source == "latencyPredictor" else [1000 * count / 15_928 for count in tokens]
    sticky = [score >= 0.8 for score in prefix]
    unpredicted = sys.float_info.max
    costs = [unpredicted if math.isnan(cost) else cost for cost in costs]
    best = min((c for c, s in zip(costs, sticky, strict=True) if s), default=0.0)
    other = min((c for c, s in zip(costs, sticky, strict=True) if not s), default=unpredicted)
    if best - other == pytest.approx(penalty):
        return
    too_slow = penalty > 0 and best - other > penalty
    expected = sticky if any(sticky) and not too_slow else [True] * len(data)
    assert plugin.keep(request(), candidates, RNG).tolist() == expected


def test_exploration_ignores_the_affinity() -> None:
    candidates = build_snapshot(2, prefix_score=[1.0, 0.0])
    assert PrefixCacheAffinityFilter().keep(request(), candidates, RNG).tolist() == [True, False]
    assert PrefixCacheAffinityFilter(exploration_probability=1.0).keep(request(), candidates, RNG).all()


def test_holders_without_a_prediction_count_as_too_slow() -> None:
    by_prediction = PrefixCacheAffinityFilter(ttft_source="latencyPredictor")
    candidates = build_snapshot(2, prefix_score=[1.0, 0.0], predicted=[(math.nan, 1.0), (100, 1.0)])
    assert by_prediction.keep(request(), candidates, RNG).all()
    neither = build_snapshot(2, prefix_score=[1.0, 0.0], predicted=[(math.nan, 1.0), (math.nan, 1.0)])
    assert by_prediction.keep(request(), neither, RNG).tolist() == [True, False]


def test_a_missing_objective_is_not_an_objective_of_0() -> None:
    candidates = build_snapshot(2, predicted=[(900, 20), (400, 5000)])
    tiers = SloHeadroomTierFilter(epsilon_explore_neg=0.0)
    assert tiers.keep(request(tpot_ms=None), candidates, RNG).tolist() == [0, 1]
    assert tiers.keep(request(ttft_ms=None), candidates, RNG).tolist() == [1, 0]


def test_headroom_differences_below_a_millisecond_count() -> None:
    candidates = build_snapshot(2, predicted=[(499.9, 20.0), (499.4, 20.0)])
    assert LatencyScorer().score(request(), candidates, RNG).tolist() == [1.0, 0.01]
    candidates = build_snapshot(2, predicted=[(500.3, 20.0), (499.9, 20.0)])
    assert SloHeadroomTierFilter(epsilon_explore_neg=0.0).keep(request(), candidates, RNG).tolist() == [False, True]


@pytest.mark.parametrize("size", [101, 1000])
def test_large_pools_are_predicted_and_scored_as_small_ones(size: int) -> None:
    candidates = build_snapshot(size, predicted=[(100.0 + index, 20.0) for index in range(size)])
    kept = SloHeadroomTierFilter(epsilon_explore_neg=0.0).keep(request(), candidates, RNG)
    assert kept.sum() == min(size, 401)
    scores = LatencyScorer(headroom_selection_strategy="most").score(request(), candidates, RNG)
    assert (scores > 0).sum() == min(size, 401)
    assert scores.argmax() == 0


def test_idle_endpoints_come_before_those_that_miss_less() -> None:
    candidates = build_snapshot(3, in_flight=[1, 0, 0], predicted=[(501, 50), (900, 90), (700, 70)])
    scores = LatencyScorer().score(request(), candidates, RNG)
    assert scores.tolist() == [0.0, 0.01, 1.0]


def test_missing_tpot_alone_is_better_than_missing_ttft() -> None:
    candidates = build_snapshot(3, in_flight=[1, 1, 1], predicted=[(600, 40), (400, 60), (600, 60)])
    assert LatencyScorer().score(request(), candidates, RNG).nonzero()[0].tolist() == [1]


def test_a_latency_that_is_met_counts_by_its_distance_too() -> None:
    candidates = build_snapshot(2, in_flight=[1, 1], predicted=[(450, 60), (100, 56)])
    # TTFT is 50 and 400 ms below the objective and has a weight of 0.8; TPOT is 10 and 6 ms above and has 0.2.
    assert LatencyScorer().score(request(), candidates, RNG).tolist() == pytest.approx([0.81, 0.2], abs=0.011)


@pytest.mark.parametrize("predicted", [None, [(math.nan, math.nan), (math.nan, 5.0)]])
def test_without_predictions_load_and_prefix_decide(predicted: list[tuple[float, float]] | None) -> None:
    candidates = build_snapshot(2, waiting=[4, 1], kv_usage=[0.5, 0.2], prefix_score=[0.9, 0], predicted=predicted)
    expected = [0.47, 0.52]  # (0.5 + 0.0 + 0.9) / 3 and (0.8 + 0.75 + 0.0) / 3, in whole hundredths
    assert LatencyScorer().score(request(), candidates, RNG).tolist() == pytest.approx(expected)
    assert LatencyScorer(composite_kv_weight=0, composite_queue_weight=0, composite_prefix_weight=0).score(
        request(), candidates, RNG
    ).tolist() == pytest.approx([0.5, 0.8])


def test_the_producer_s_buffer_factor_holds_for_all_that_read_headroom() -> None:
    producer = PredictedLatencyProducer(slo_buffer_factor=0.5)
    assert LatencyScorer().bound([producer]).buffer_factor == 0.5
    assert SloHeadroomTierFilter(slo_buffer_factor=0.9).bound([producer]).buffer_factor == 0.9
    assert LatencyScorer().bound([]).buffer_factor == 1.0
