import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.report.statistics import geometric_interval, mean_interval, median_interval, ratio_interval

_VALUES = st.lists(st.floats(0.01, 1e4), min_size=2, max_size=12)


def test_the_mean_of_three_seeds_has_the_t_interval_of_two_degrees_of_freedom() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # the 0.975-quantile of t with 2 degrees of freedom; the deviation is 1
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)


def test_one_seed_has_no_interval() -> None:
    found = geometric_interval([2.5])
    assert (found.low, found.high) == (None, None)
    assert found.text() == "2.50"


def test_an_interval_is_printed_with_three_digits() -> None:
    assert geometric_interval([0.5, 0.5]).text() == "0.500 [0.500, 0.500]"
    assert mean_interval([1234.0, 1234.0]).text() == "1,234 [1,234, 1,234]"


@given(_VALUES, st.floats(0.1, 10))
def test_a_common_factor_of_all_seeds_cancels_in_a_ratio(theirs: list[float], factor: float) -> None:
    found = ratio_interval([factor * value for value in theirs], theirs)
    assert found.low is not None
    assert found.high is not None
    assert found.mean == pytest.approx(factor)
    assert found.high / found.low == pytest.approx(1)


@given(_VALUES, _VALUES)
def test_the_inverse_ratio_has_the_inverse_interval(ours: list[float], theirs: list[float]) -> None:
    seeds = min(len(ours), len(theirs))
    one, other = ratio_interval(ours[:seeds], theirs[:seeds]), ratio_interval(theirs[:seeds], ours[:seeds])
    assert one.low is not None
    assert other.high is not None
    assert one.mean == pytest.approx(1 / other.mean)
    assert one.low == pytest.approx(1 / other.high)


def test_intervals_contain_the_true_mean_95_percent_of_the_time() -> None:
    rng = random.Random(1)
    held = 0
    for _ in range(2000):
        found = geometric_interval([rng.lognormvariate(0, 0.3) for _ in range(5)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 <= found.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_each_seed_has_its_own_median_over_groups() -> None:
    found = median_interval([[1.0, 4.0], [2.0, 5.0], [9.0, 0.1]])
    assert found.mean == pytest.approx(math.sqrt(2 * 4))
    assert found.seeds == 2
