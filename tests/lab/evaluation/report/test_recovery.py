import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.report.recovery import Bin, coverage_after, limits_before, over_seeds, periods, recovery_s

GOOD, BAD = (8.0, 4.0, 90.0), (25.0, 4.0, 70.0)


def bins_of(text: str, width_s: float = 5.0) -> list[Bin]:
    """A bin for each letter, good or bad; a space is a bin without requests."""
    letters = {"g": GOOD, "b": BAD}
    return [(width_s * place, *letters[letter]) for place, letter in enumerate(text) if letter != " "]


@pytest.mark.parametrize(
    ("text", "changed_s", "wanted"),
    [
        ("gggggg", 10.0, 5.0),  # the first period after the change was within bounds already
        ("ggbbgg", 10.0, 15.0),
        ("ggbgbbgg", 10.0, 25.0),  # one good period between bad ones is luck
        ("ggbbgg", 12.0, 13.0),  # the period that the change falls into doesn't count
        ("gg bgg", 10.0, 15.0),
        ("ggbbbb", 10.0, None),
        ("ggbbbg", 10.0, None),
        ("gbgggg", 10.0, None),  # out of bounds before the change: nothing to come back to
        ("", 10.0, None),
    ],
)
def test_the_time_to_recover(text: str, changed_s: float, wanted: float | None) -> None:
    assert recovery_s(bins_of(text), changed_s) == wanted


@given(st.text("gb", max_size=30), st.integers(0, 31), st.sampled_from([1.0, 5.0, 10.0]))
def test_nobody_recovers_before_the_first_good_period_has_passed(text: str, changed: int, width_s: float) -> None:
    found = recovery_s(bins_of(text, width_s), changed * width_s)
    first = text.find("gg", changed)
    if first >= 0 and changed and text[changed - 1] == "g":
        assert found == (first + 1 - changed) * width_s
    else:
        assert found is None


def test_coverage_is_the_mean_from_then_on() -> None:
    assert coverage_after(bins_of("bbgb"), 10.0) == 80
    assert coverage_after(bins_of("bb"), 10.0) is None


def test_what_was_out_of_bounds_before_needs_to_come_back_no_further_than_that() -> None:
    bins = bins_of("gbgbbggg")
    assert recovery_s(bins, 15.0) == 15.0
    assert recovery_s(bins_of("gbbbgg"), 15.0) is None
    limits = limits_before(bins_of("gbbbgg"), 15.0)
    assert limits == (25.0, 5.0)
    assert recovery_s(bins_of("gbbbgg"), 15.0, limits) == 5.0
    # A single bad period long before the change is no excuse.
    assert limits_before(bins_of("bggb"), 15.0) == (10.0, 5.0)


def test_periods_are_told_from_the_last_one_before_the_change() -> None:
    assert periods(over_seeds([bins_of("ggbg"), bins_of("gggg")]), 10.0) == [
        (-5.0, *GOOD),
        (0.0, 16.5, 4.0, 80.0),
        (5.0, *GOOD),
    ]
