import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.prediction.confidence import Confidence

LATENCIES = st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), max_size=200)


def observe(confidence: Confidence, factor: float, count: int = 50) -> None:
    """Take in latencies that hardly vary, with predictions that are off by a factor."""
    for number in range(count):
        confidence.ttft_observed(100 * factor, 100 + number % 3)
        confidence.tpot_observed(20.0, 20 + number % 3)


def test_predictions_that_are_far_off_lose_their_say_and_regain_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    confidence, say = Confidence(), []
    # Between the two factors, 1.4 and 2, nothing changes.
    for factor in (1.6, 3.0, 1.6, 1.1):
        observe(confidence, factor)
        say.append(confidence.may_decide)
    assert say == [True, False, False, True]
    lost, regained = (record.message for record in caplog.records)
    assert "TTFT was off by a factor of 2" in lost
    assert "decide again" in regained


def test_latencies_that_vary_by_chance_keep_the_predictions_say() -> None:
    confidence = Confidence()
    for number in range(100):
        confidence.ttft_observed(100.0, 10.0 if number % 2 else 1000.0)
    assert confidence.may_decide


def test_a_few_surprises_change_nothing() -> None:
    confidence = Confidence()
    observe(confidence, 1.0)
    observe(confidence, 10.0, count=10)
    assert confidence.may_decide


@given(LATENCIES)
def test_right_predictions_always_decide(pairs: list[tuple[float, float]]) -> None:
    confidence = Confidence()
    for ttft_ms, tpot_ms in pairs:
        confidence.ttft_observed(ttft_ms, ttft_ms)
        confidence.tpot_observed(tpot_ms, tpot_ms)
    assert confidence.may_decide


@pytest.mark.parametrize("predicted_ms", [float("nan"), float("inf"), 0.0, -1.0])
def test_unknown_predictions_do_not_count(predicted_ms: float) -> None:
    confidence = Confidence()
    for _ in range(50):
        confidence.ttft_observed(predicted_ms, 100.0)
    assert confidence.may_decide
