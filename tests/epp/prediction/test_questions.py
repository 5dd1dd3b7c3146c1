"""The questions to the models for a decision and beside it, and what the pool learns from the answers."""

import numpy as np
import pytest

from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.features import feature_columns
from epp.prediction.questions import Questions
from epp.request.decisions import Record, explain
from epp.scheduling.configuration.config import DEFAULT_CONFIG, load_scheduler
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision
from epp.scheduling.snapshot import Endpoint, Predictions, Snapshot
from model_store import ROW_NAMES
from tests.epp.clock import Clock

LENGTH, PREFIX = ROW_NAMES.index("input_token_length"), ROW_NAMES.index("prefix_cache_score")


def pool_of(count: int, clock: Clock) -> Pool:
    pool = Pool(PrefixIndex(100), 60.0, clock=clock)
    pool.replace_endpoints(Endpoint(f"pod-{i}", f"10.0.0.{i}:8000") for i in range(count))
    return pool


def answer(columns: np.ndarray[tuple[int, int], np.dtype[np.float32]], ms_per_token: float) -> Predictions:
    """Return predictions by this time per uncached token, and a TPOT of 10 ms."""
    ttft_ms = columns[LENGTH] * (1 - columns[PREFIX]) * ms_per_token + 5.0
    tpot_ms = np.full(columns.shape[1], 10.0)
    return Predictions(ttft_ms * 1.5, tpot_ms * 1.5, 1, "test", ttft_ms, tpot_ms)


def test_prompt_costs_come_from_the_models_and_the_decision_gets_its_own_rows() -> None:
    clock = Clock()
    pool = pool_of(3, clock)
    request, questions = Request("1", "m", input_tokens=700), Questions(pool, clock)
    before = pool.snapshot(request)
    question = questions.build(feature_columns(request, before), before, wants_costs=True)
    predictions = questions.add_predictions(question, before, answer(question.columns, 0.02)).predictions
    assert predictions is not None
    assert predictions.ttft_ms.tolist() == pytest.approx([(700 * 0.02 + 5) * 1.5] * 3)
    snapshot = pool.snapshot(request)
    assert snapshot.prefill_ms_per_token.tolist() == pytest.approx([0.02] * 3)
    assert snapshot.unloaded_tpot_ms.tolist() == pytest.approx([10.0] * 3)


def test_costs_are_predicted_once_a_second_and_only_for_small_pools() -> None:
    clock = Clock()
    pool = pool_of(5, clock)
    questions, request = Questions(pool, clock), Request("1", "m")
    few, many = pool.snapshot(request), pool.snapshot(request).take(np.arange(5000) % 5)

    def rows(among: Snapshot, *, wants_costs: bool = True) -> int:
        question = questions.build(feature_columns(request, among), among, wants_costs=wants_costs)
        return len(question.columns.T)

    assert [rows(few, wants_costs=False), rows(few), rows(few)] == [5, 15, 5]
    clock.now_s += 1.0
    assert [rows(many), rows(few)] == [5000, 15]


def test_the_least_tpot_lasts_and_a_removed_endpoints_costs_are_forgotten() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    slots = np.arange(2)
    pool.learn_costs(slots, np.array([0.02, 0.03]), np.array([8.0, 9.0]))
    clock.now_s += 60.0
    pool.learn_costs(slots, np.array([0.02, 0.03]), np.array([30.0, 5.0]))
    unloaded_ms = pool.snapshot(Request("1", "m")).unloaded_tpot_ms.tolist()
    assert unloaded_ms == pytest.approx([8.0, 5.0], rel=0.02)
    pool.replace_endpoints([Endpoint("pod-1", "10.0.0.1:8000")])
    clock.now_s += 10.0
    pool.replace_endpoints([Endpoint("pod-1", "10.0.0.1:8000"), Endpoint("new", "10.0.0.9:8000")])
    fresh = pool.snapshot(Request("1", "m"))
    costs = dict(zip([endpoint.name for endpoint in fresh.endpoints], fresh.prefill_ms_per_token, strict=True))
    assert costs["pod-1"] == pytest.approx(0.03)
    assert np.isnan(costs["new"])


def test_an_endpoint_has_a_bias_only_if_it_differs_from_the_others() -> None:
    clock = Clock()
    pool = pool_of(4, clock)
    slots, tpot_ms = np.arange(4), np.full(4, 10.0)

    def learn(times: int) -> list[float]:
        for _ in range(times):
            pool.learn_costs(slots, np.full(4, 0.02), tpot_ms)
        return [round(bias, 2) for bias in pool.snapshot(Request("1", "m")).tpot_bias.tolist()]

    assert learn(1) == [1, 1, 1, 1]
    for slot in (0, 1, 2):
        pool.own_requests.record_gap(slot, 12.0, 1)
    # The three observed endpoints differ from the models alike, so none has a bias. The last one was not observed.
    assert learn(5) == [1, 1, 1, 1]
    for _ in range(600):
        pool.own_requests.record_gap(2, 24.0, 1)
    assert 1 < learn(1)[2] < 1.41
    assert learn(10) == [1, 1, 1.41, 1]
    others = [endpoint for slot, endpoint in pool.endpoints.items() if slot != 2]
    pool.replace_endpoints(others)
    clock.now_s += 10.0
    pool.replace_endpoints([*others, Endpoint("new", "10.0.0.9:8000")])
    new = pool.slot_of("10.0.0.9:8000")
    assert new == 2
    assert pool.snapshot(Request("1", "m")).tpot_bias.tolist() == pytest.approx([1, 1, 1, 1])


def test_the_bias_ends_when_the_models_know_the_endpoints_speed() -> None:
    pool = pool_of(3, Clock())
    slots, costs = np.arange(3), np.full(3, 0.02)
    for slot, gap_ms in ((0, 12.0), (1, 12.0), (2, 24.0)):
        pool.own_requests.record_gap(slot, gap_ms, 1)
    for predicted_ms, bias in ((12.0, 2**0.5), (24.0, 1.0)):
        for _ in range(20):
            pool.learn_costs(slots, costs, np.array([12.0, 12.0, predicted_ms]))
        assert pool.snapshot(Request("1", "m")).tpot_bias.tolist() == pytest.approx([1, 1, bias], abs=0.01)


def test_an_explanation_shows_medians_and_costs() -> None:
    upper = np.array([300.0, 600.0]), np.array([26.0, 52.0])
    predictions = Predictions(*upper, 1, "test", *(latency / 2 for latency in upper))
    pool = pool_of(2, Clock())
    pool.learn_costs(np.arange(2), np.array([0.02, 0.03]), np.array([8.0, 9.0]))
    request = Request("1", "m", slo_ttft_ms=500, slo_tpot_ms=50, prediction_based=True)
    snapshot = pool.snapshot(request).with_predictions(predictions)
    decision = load_scheduler(DEFAULT_CONFIG, {}).schedule(request, snapshot, np.random.default_rng(1))
    assert isinstance(decision, Decision)
    candidates = explain(Record(decision, 1.0, None))["candidates"]
    assert candidates[0]["predicted"] == {"ttft_ms": 300, "tpot_ms": 26, "ttft_median_ms": 150, "tpot_median_ms": 13}
    assert [one["prefill_ms_per_token"] for one in candidates] == [0.02, 0.03]
    assert [(one["tpot_bias"], one["slowdown"]) for one in candidates] == [(1, 1)] * 2
