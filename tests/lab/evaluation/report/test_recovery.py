import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.report.recovery import Bin, coverage_after, limits_before, over_seeds, periods, recovery_s

GOOD, BAD = (8.0, 4.0, 90.0), (25.0, 4.0, 70.0)


def bins_of(text: str, width_s: float = 5.0) -> list[Bin]:
    """Return a bin for each letter, g(ood) or b(ad). A space is a bin without requests."""
    letters = {"g": GOOD, "b": BAD}
    return [(width_s * place, *letters[letter]) for place, letter in enumerate(text) if letter != " "]


@pytest.mark.parametrize(
    ("text", "changed_s", "wanted"),
    [
        ("gggggg", 10.0, 5.0),  # the first bin after the change is within bounds
        ("ggbbgg", 10.0, 15.0),
        ("ggbgbbgg", 10.0, 25.0),  # one good bin between bad ones doesn't count
        ("ggbbgg", 12.0, 13.0),  # the bin with the change doesn't count
        ("gg bgg", 10.0, 15.0),
        ("ggbbbb", 10.0, None),
        ("ggbbbg", 10.0, None),
        ("gbgggg", 10.0, None),  # out of bounds before the change, so there is nothing to recover to
        ("", 10.0, None),
    ],
)
def test_the_time_to_recover(text: str, changed_s: float, wanted: float | None) -> None:
    assert recovery_s(bins_of(text), changed_s) == wanted


@given(st.text("gb", max_size=30), st.integers(0, 31), st.sampled_from([1.0, 5.0, 10.0]))
def test_recovery_ends_with_the_first_of_two_good_bins(text: str, changed: int, width_s: float) -> None:
    found = recovery_s(bins_of(text, width_s), changed * width_s)
    first = text.find("gg", changed)
    if first >= 0 and changed and text[changed - 1] == "g":
        assert found == (first + 1 - changed) * width_s
    else:
        assert found is None


def test_coverage_is_the_mean_of_the_bins_from_a_moment_on() -> None:
    assert coverage_after(bins_of("bbgb"), 10.0) == 80
    assert coverage_after(bins_of("bb"), 10.0) is None


def test_limits_are_wider_if_errors_were_out_of_bounds_before() -> None:
    bins = bins_of("gbgbbggg")
    assert recovery_s(bins, 15.0) == 15.0
    assert recovery_s(bins_of("gbbbgg"), 15.0) is None
    limits = limits_before(bins_of("gbbbgg"), 15.0)
    assert limits == (25.0, 5.0)
    assert recovery_s(bins_of("gbbbgg"), 15.0, limits) == 5.0
    # A single bad bin long before the change doesn't widen the limits.
    assert limits_before(bins_of("bggb"), 15.0) == (10.0, 5.0)


def test_periods_begin_with_the_last_one_before_the_change() -> None:
    assert periods(over_seeds([bins_of("ggbg"), bins_of("gggg")]), 10.0) == [
        (-5.0, *GOOD),
        (0.0, 16.5, 4.0, 80.0),
        (5.0, *GOOD),
    ]
