"""slo-scorer's own strategy: where a request goes, and why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Snapshot
from tests.epp.scheduling.snapshots import build_snapshot

RNG = np.random.default_rng(1)
SCORER = SloScorer()
EVEN = [(300.0, 26.0), (300.0, 26.0)]
EVEN_MEDIANS = [(200.0, 20.0), (200.0, 20.0)]


def request(ttft_ms: float | None = 1000, tpot_ms: float | None = 60, tokens: int = 1000) -> Request:
    return Request("1", "m", input_tokens=tokens, slo_ttft_ms=ttft_ms, slo_tpot_ms=tpot_ms)


def scores(asked: Request, candidates: Snapshot, scorer: SloScorer = SCORER) -> list[float]:
    found: list[float] = scorer.score(asked, candidates, RNG).tolist()
    return found


def test_an_endpoint_that_meets_both_objectives_scores_far_above_the_others() -> None:
    candidates = build_snapshot(
        3, predicted=[(300, 26), (3000, 26), (300, 260)], medians=[(200, 20), (2000, 20), (200, 200)]
    )
    best, late, slow = scores(request(), candidates)
    assert best == 1.0
    assert late < 0.1
    assert slow < 0.1


def test_a_loose_request_avoids_endpoints_where_strict_ones_would_miss() -> None:
    candidates = build_snapshot(
        2,
        in_flight=[20, 20],
        tpot_slos=[{21.0: 20}, {200.0: 20}],
        unloaded_tpot_ms=[8, 8],
        predicted=EVEN,
        medians=EVEN_MEDIANS,
    )
    strict, loose = scores(request(tpot_ms=200), candidates)
    assert strict < loose == 1.0


def test_a_quick_start_leaves_a_response_room_to_be_slowed() -> None:
    def first_of(so_far: tuple[float, float]) -> list[float]:
        candidates = build_snapshot(
            2,
            in_flight=[20, 20],
            tpot_slos=[{21.0: 20}, {200.0: 20}],
            so_far=so_far,
            unloaded_tpot_ms=[8, 8],
            predicted=[(300, 26), (300, 26.5)],
            medians=[(200, 20), (200, 20.4)],
        )
        return scores(request(tpot_ms=200), candidates)

    at_risk, with_room, too_late = first_of((0, 0)), first_of((2000, 2000 * 8.0)), first_of((2000, 2000 * 40.0))
    assert at_risk[0] < at_risk[1] == 1.0
    assert with_room[0] == 1.0
    # Late answers don't suffer, but the endpoint could do better than to serve them.
    assert too_late[0] < too_late[1] == 1.0


def test_hopeless_requests_let_an_endpoint_recover_that_could_meet_objectives_with_fewer() -> None:
    def with_unloaded(fast_ms: float) -> list[float]:
        candidates = build_snapshot(
            2,
            in_flight=[20, 20],
            tpot_slos=[{15.0: 20}, {15.0: 20}],
            so_far=(2000, 2000 * 40.0),
            unloaded_tpot_ms=[fast_ms, 30],
            predicted=[(300, 40), (500, 80)],
            medians=[(200, 30), (400, 60)],
        )
        return scores(request(tpot_ms=15), candidates)

    assert with_unloaded(8)[1] == 1.0
    # Neither could meet them: the request goes where it is done soonest.
    assert with_unloaded(28)[0] == 1.0


def test_a_hopeless_request_goes_where_it_costs_least() -> None:
    candidates = build_snapshot(
        2,
        in_flight=[20, 20],
        tpot_slos=[{22.0: 20}, {100.0: 20}],
        unloaded_tpot_ms=[8, 8],
        predicted=[(300, 26), (500, 80)],
        medians=[(200, 20), (400, 60)],
    )
    assert scores(request(tpot_ms=5), candidates)[1] == 1.0


def test_a_prompt_goes_where_it_is_cached_when_reading_it_would_hold_others_up() -> None:
    def with_cost(ms_per_token: float) -> list[float]:
        candidates = build_snapshot(
            2,
            in_flight=[30, 30],
            tpot_slos=[{22.0: 30}, {22.0: 30}],
            unloaded_tpot_ms=[8, 8],
            prefill_ms_per_token=[ms_per_token, ms_per_token],
            prefix_score=[0.0, 1.0],
            # The endpoint with the cached prompt is slightly slower.
            predicted=[(300, 26), (300, 26.5)],
            medians=[(200, 20), (200, 20.4)],
        )
        return scores(request(tokens=8000), candidates)

    assert with_cost(0.05)[1] == 1.0
    assert with_cost(0.0)[0] == 1.0


def test_a_prompt_stays_with_its_cache_while_prompts_wait_on_most_endpoints() -> None:
    def with_prompts(tokens: list[float]) -> list[float]:
        candidates = build_snapshot(
            4,
            in_flight=[5, 5, 5, 5],
            prefill_tokens=tokens,
            decode_tokens=[5000, 5000, 5000, 5000],
            prefill_ms_per_token=[0.1, 0.1, 0.1, 0.1],
            prefix_score=[0.0, 1.0, 0.0, 0.0],
            # The endpoint with the cached prompt meets the objective of TTFT less often.
            predicted=[(300, 26), (1000, 26), (300, 26), (300, 26)],
            medians=[(200, 20), (800, 20), (200, 20), (200, 20)],
        )
        return scores(request(tokens=4000), candidates)

    assert with_prompts([9000, 9000, 9000, 9000])[1] == 1.0
    assert with_prompts([9000, 0, 0, 0])[1] < 1.0
    assert with_prompts([0, 0, 0, 0])[1] < 1.0


def test_of_two_endpoints_one_with_a_long_queue_does_not_keep_its_prompts() -> None:
    candidates = build_snapshot(
        2,
        in_flight=[20, 1],
        prefill_tokens=[200_000, 0],
        prefill_ms_per_token=[0.1, 0.1],
        prefix_score=[1.0, 0.0],
        predicted=[(20_000, 40), (300, 26)],
        medians=[(15_000, 30), (200, 20)],
    )
    assert scores(request(tokens=4000), candidates)[1] == 1.0


def test_between_equal_endpoints_the_faster_is_chosen() -> None:
    candidates = build_snapshot(2, predicted=[(300, 12), (300, 13)], medians=[(200, 10), (200, 11)])
    assert scores(request(None, None), candidates)[0] == 1.0
    assert scores(request(None, None), candidates)[1] > 0.9


def test_an_endpoint_slower_than_predicted_scores_lower() -> None:
    candidates = build_snapshot(2, predicted=EVEN, medians=EVEN_MEDIANS, tpot_bias=[1.3, 1.0])
    assert scores(request(tpot_ms=25), candidates)[0] < scores(request(tpot_ms=25), candidates)[1] == 1.0


def test_a_stalled_endpoint_is_avoided_until_its_next_token() -> None:
    def first_of(
        since_ms: list[float], prefill_tokens: list[float] | None = None, ms_per_token: float = 0.0
    ) -> list[float]:
        # The first endpoint is slightly faster.
        candidates = build_snapshot(
            2,
            predicted=[(300, 26), (300, 26.5)],
            medians=[(200, 20), (200, 20.4)],
            recent_tpot_ms=[20, 20],
            ms_since_token=since_ms,
            prefill_tokens=prefill_tokens,
            prefill_ms_per_token=[ms_per_token, ms_per_token],
        )
        return scores(request(), candidates)

    assert first_of([15, 5])[0] == 1.0
    assert first_of([3000, 5])[0] < 0.1
    # A step may be that long while prompts are read. Without observed tokens, a stall can't be detected.
    assert first_of([3000, 5], prefill_tokens=[60_000, 0], ms_per_token=0.05)[0] == 1.0
    assert first_of([np.nan, 5])[0] == 1.0
    # When no endpoint sends tokens, the picker itself has paused.
    assert first_of([3000, 3000])[0] == 1.0


def test_without_medians_an_upper_quantile_alone_decides() -> None:
    candidates = build_snapshot(2, predicted=[(300, 70), (300, 50)])
    assert scores(request(), candidates)[1] == 1.0


def test_the_buffer_factor_scales_tpot_objectives() -> None:
    candidates = build_snapshot(2, predicted=[(300, 26), (800, 13)], medians=[(200, 20), (700, 10)])
    assert scores(request(ttft_ms=750), candidates)[0] == 1.0
    assert scores(request(ttft_ms=750), candidates, SloScorer(slo_buffer_factor=0.3))[1] == 1.0


latency = st.one_of(st.just(np.nan), st.just(np.inf), st.floats(0, 1e6))
latencies = st.lists(st.tuples(latency, latency), min_size=4, max_size=4)
counts = st.lists(st.dictionaries(st.floats(0.1, 1e5), st.integers(1, 50), max_size=3), min_size=4, max_size=4)
objective = st.one_of(st.none(), st.floats(0.1, 1e6))


@given(latencies, latencies | st.none(), counts, objective, objective)
def test_scores_stay_in_range_and_an_unknown_endpoint_scores_worst(
    predicted: list[tuple[float, float]],
    medians: list[tuple[float, float]] | None,
    in_flight: list[dict[float, int]],
    ttft_ms: float | None,
    tpot_ms: float | None,
) -> None:
    candidates = build_snapshot(
        4,
        in_flight=[float(sum(one.values())) for one in in_flight],
        tpot_slos=in_flight,
        predicted=predicted,
        medians=medians,
    )
    found = scores(request(ttft_ms, tpot_ms), candidates)
    known = [bool(np.isfinite([*predicted[i], *(medians[i] if medians else ())]).all()) for i in range(4)]
    assert all(0 <= score <= 1 for score in found)
    assert not any(score for score, is_known in zip(found, known, strict=True) if not is_known)
    assert max(found) == pytest.approx(1.0 if any(known) else 0.0)


@given(st.integers(1, 60), st.floats(8, 200))
def test_another_request_in_flight_never_makes_an_endpoint_better(more: int, slo_ms: float) -> None:
    def first_less_second(extra: int) -> float:
        candidates = build_snapshot(
            2,
            in_flight=[20, 20],
            tpot_slos=[{slo_ms: 5 + extra}, {40.0: 10}],
            unloaded_tpot_ms=[8, 8],
            predicted=EVEN,
            medians=EVEN_MEDIANS,
        )
        first, second = scores(request(), candidates)
        return first - second

    assert first_less_second(more) <= first_less_second(0) + 1e-9
