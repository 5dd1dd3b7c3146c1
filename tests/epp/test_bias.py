import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.latency.bias import TPOT, TTFT, BiasCorrection
from epp.scheduling.snapshot import Predictions

LATENCIES_MS = st.floats(0.1, 1e6)
OBSERVATIONS = st.lists(st.tuples(LATENCIES_MS, LATENCIES_MS, st.floats(0, 30)), max_size=30)


def told(bias: BiasCorrection, slot: int, factor: float, count: int, now_s: float, target: int = TTFT) -> None:
    for _ in range(count):
        bias.observe(slot, target, 100.0, 100.0 * factor, now_s)


def factor(bias: BiasCorrection, slot: int, now_s: float, target: int = TTFT) -> float:
    return float(bias.factors(np.array([slot]), now_s)[target, 0])


def test_nothing_is_corrected_before_anything_is_observed() -> None:
    np.testing.assert_array_equal(BiasCorrection(4).factors(np.arange(4), 1.0), np.ones((2, 4)))


def test_an_endpoint_that_halves_its_speed_is_soon_predicted_to_take_twice_as_long() -> None:
    bias = BiasCorrection(3, memory_s=20.0, prior=5.0)
    told(bias, 1, 1.0, 50, 0.0)
    for second in range(1, 41):
        told(bias, 1, 2.0, 10, float(second))
    assert factor(bias, 1, 40.0) == pytest.approx(2.0, rel=0.12)
    assert factor(bias, 0, 40.0) == 1.0
    assert factor(bias, 1, 40.0, TPOT) == 1.0


def test_few_observations_and_old_ones_correct_little() -> None:
    bias = BiasCorrection(1, memory_s=10.0, prior=5.0)
    told(bias, 0, 2.0, 1, 0.0)
    once = factor(bias, 0, 0.0)
    assert once == pytest.approx(2 ** (1 / 6))
    told(bias, 0, 2.0, 4, 0.0)
    often = factor(bias, 0, 0.0)
    assert often == pytest.approx(2 ** (5 / 10))
    assert factor(bias, 0, 10.0) == pytest.approx(2 ** (5 / math.e / (5 / math.e + 5)))
    assert factor(bias, 0, 1000.0) == pytest.approx(1.0)


@given(OBSERVATIONS)
def test_the_factor_is_that_of_all_weighted_residuals(observations: list[tuple[float, float, float]]) -> None:
    bias, now_s, residuals = BiasCorrection(2, 15.0, 3.0, 5.0), 0.0, []
    for predicted_ms, observed_ms, pause_s in observations:
        now_s += pause_s
        bias.observe(1, TPOT, predicted_ms, observed_ms, now_s)
        bound = math.log(5.0)
        residuals.append((max(-bound, min(bound, math.log(observed_ms / predicted_ms))), now_s))
    weights = [math.exp(-(now_s - at_s) / 15.0) for _, at_s in residuals]
    mean = sum(w * r for w, (r, _) in zip(weights, residuals, strict=True)) / (sum(weights) + 3.0)
    assert factor(bias, 1, now_s, TPOT) == pytest.approx(math.exp(mean), rel=1e-9)
    assert 1 / 5.0 <= factor(bias, 1, now_s, TPOT) <= 5.0


def test_an_upper_quantile_that_is_usually_above_stays_where_it_is() -> None:
    rng = np.random.default_rng(0)
    observed_ms = 100 * np.exp(rng.normal(0, 0.2, 2000))
    upper_ms = 100 * np.exp(1.2816 * 0.2)
    bias = BiasCorrection(1, memory_s=100.0, usual=(-1.2816 * 0.2, 0.0))
    for latency_ms in observed_ms.tolist():
        bias.observe(0, TTFT, upper_ms, latency_ms, 0.0)
    assert np.mean(observed_ms <= upper_ms * factor(bias, 0, 0.0)) == pytest.approx(0.9, abs=0.02)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_correction_only_fades_while_nothing_is_observed(first_s: float, second_s: float) -> None:
    bias = BiasCorrection(1)
    told(bias, 0, 3.0, 20, 0.0)
    earlier, later = sorted((first_s, second_s))
    assert 1.0 <= factor(bias, 0, later) <= factor(bias, 0, earlier)


@pytest.mark.parametrize("observed_ms", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_latency_teaches_nothing(observed_ms: float) -> None:
    bias = BiasCorrection(1)
    bias.observe(0, TTFT, 100.0, observed_ms, 0.0)
    bias.observe(0, TTFT, observed_ms, 100.0, 0.0)
    assert factor(bias, 0, 0.0) == 1.0


def test_an_observation_that_comes_late_does_not_turn_time_back() -> None:
    bias = BiasCorrection(1)
    told(bias, 0, 2.0, 5, 10.0)
    told(bias, 0, 2.0, 5, 9.0)
    assert factor(bias, 0, 10.0) == pytest.approx(2 ** (10 / 15))


def test_predictions_of_some_candidates_are_corrected_by_their_slots() -> None:
    bias = BiasCorrection(5, prior=5.0)
    told(bias, 4, 2.0, 5, 0.0)
    told(bias, 2, 3.0, 5, 0.0, TPOT)
    predictions = Predictions(np.array([10.0, 20.0]), np.array([1.0, 2.0]), 7, "embedded")
    corrected = bias.corrected(predictions, np.array([4, 2]), 0.0)
    np.testing.assert_allclose(corrected.ttft_ms, [10 * 2**0.5, 20.0])
    np.testing.assert_allclose(corrected.tpot_ms, [1.0, 2 * 3**0.5])
    assert (corrected.generation, corrected.source) == (7, "embedded")


def test_a_slot_that_is_given_to_another_endpoint_starts_anew() -> None:
    bias = BiasCorrection(2)
    told(bias, 0, 2.0, 5, 0.0)
    told(bias, 1, 2.0, 5, 0.0)
    bias.forget(0)
    assert factor(bias, 0, 0.0) == 1.0
    assert factor(bias, 1, 0.0) > 1.0
    bias.forget()
    assert factor(bias, 1, 0.0) == 1.0


@pytest.mark.parametrize(("memory_s", "prior", "largest"), [(0.0, 1.0, 2.0), (1.0, 0.0, 2.0), (1.0, 1.0, 1.0)])
def test_settings_that_make_no_sense_are_refused(memory_s: float, prior: float, largest: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        BiasCorrection(1, memory_s, prior, largest)
