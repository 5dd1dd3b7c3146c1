import math

import pytest

from lab.soak.clients import ClientReport
from lab.soak.figures import SoakRun, figures, p99_over_time, thirds
from lab.soak.resources import Levels

# One request a second for half a minute: 10 ms, 20 ms and 40 ms in the three thirds.
SEEN = ClientReport(sent=30, took=[(float(second), 10.0 * 2 ** (second // 10)) for second in range(30)])
LEVELS = Levels(list(range(6)), [90, 100, 100, 100, 110, 110], [20.0] * 6, [8.0] * 6)


def test_what_grows_between_the_second_and_the_last_third_is_told() -> None:
    found = figures([SoakRun("http2", 1, SEEN, LEVELS, 0.0)])
    assert found["soak_http2_1_p99_ratio"] == 2
    assert (found["soak_http2_1_rss_mib"], found["soak_http2_1_rss_mib_growth"]) == (110, 10)
    assert found["soak_http2_1_descriptors_growth"] == found["soak_http2_1_threads_growth"] == 0


def test_a_run_is_clean_if_nothing_was_lost_or_stayed_in_flight() -> None:
    assert SoakRun("http2", 1, SEEN, LEVELS, 0.0).is_clean
    assert not SoakRun("http2", 1, SEEN, LEVELS, 1.0).is_clean
    assert not SoakRun("http2", 1, ClientReport(sent=1, lost=["timeout"]), LEVELS, 0.0).is_clean


def test_the_p99_over_time_has_a_point_for_each_span() -> None:
    middles_s, p99s_ms = zip(*p99_over_time(SEEN, 3), strict=True)
    assert middles_s == pytest.approx((29 / 6, 29 / 2, 29 * 5 / 6))
    assert p99s_ms == (10, 20, 40)


def test_a_run_without_answers_has_no_p99() -> None:
    assert all(math.isnan(ms) for _, ms in p99_over_time(ClientReport(), 3))
    assert "soak_http2_1_p99_ratio" not in figures([SoakRun("http2", 1, ClientReport(), LEVELS, 0.0)])


def test_the_thirds_of_a_single_value_are_that_value() -> None:
    assert thirds([7.0]) == (7.0, 7.0)
