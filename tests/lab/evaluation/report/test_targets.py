import pytest

from lab.evaluation.report.statistics import Interval
from lab.evaluation.report.summary import Summary
from lab.evaluation.report.targets import TARGETS, FigureTarget, verdicts


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
def test_a_target_is_met_only_by_a_whole_interval(found: Interval | None, verdict: str) -> None:
    assert FigureTarget("coverage", "", 88, 92).verdict(found) == verdict


def test_targets_format_their_wanted_range() -> None:
    wanted = {target.name: target.wanted for target in TARGETS}
    assert wanted["goodput_of_oracle"] == "≥ 0.92"
    assert wanted["recovery_s"] == "≤ 60"
    assert wanted["coverage_q90"] == "88 to 92"


def test_a_target_without_a_figure_is_listed_too() -> None:
    found = verdicts(Summary({"ttft_mdape": Interval(8.0, 1)}, {}))
    said = {target.name: (text, verdict) for target, text, verdict in found}
    assert said["ttft_mdape"] == ("8.00 (one seed, no interval)", "met")
    assert said["recovery_s"] == ("-", "not measured")
    assert len(said) == len(TARGETS)
