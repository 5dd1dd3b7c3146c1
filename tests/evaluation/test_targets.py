import pytest

from scripts.evaluation.statistics import Interval
from scripts.evaluation.targets import TARGETS, Target


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Interval(90.0, 3, 89.0, 91.0), "met"),
        (Interval(90.0, 3, 80.0, 99.0), "unsure"),
        (Interval(87.0, 3, 86.0, 88.5), "unsure"),
        (Interval(95.0, 3, 93.0, 97.0), "missed"),
        (Interval(95.0, 1), "missed"),
        (Interval(88.0, 1), "met"),
        (None, "not measured"),
    ],
)
def test_an_interval_meets_a_range_only_as_a_whole(found: Interval | None, verdict: str) -> None:
    assert Target("coverage", "", 88, 92).verdict(found) == verdict


def test_targets_say_what_they_want() -> None:
    wanted = {target.name: target.wanted for target in TARGETS}
    assert wanted["goodput_of_oracle"] == "≥ 0.92"
    assert wanted["recovery_s"] == "≤ 60"
    assert wanted["coverage_q90"] == "88 to 92"
