"""A start without models predicts as soon as a model is published, and one with kept models from its first request."""

import pytest

from lab.cold_start.report import figures, page
from lab.cold_start.starts import ENDS, StartResult, Trial, measure
from simulator.workloads import WORKLOADS

TRIAL = Trial(WORKLOADS["poisson"], 0.6)


@pytest.mark.slow
def test_a_start_without_models_predicts_once_there_are_enough_rows() -> None:
    found = measure(TRIAL, "empty", "no models", None, seed=1)
    assert found.predicted_from is not None
    assert 100 < found.predicted_from < ENDS[-1]
    assert found.ttft_mdape[0] is None
    assert found.ttft_mdape[-1] is not None
    assert len(found.attainment) == len(found.base_attainment) == len(ENDS)
    # Until there are predictions, both policies decide alike.
    assert found.attainment[0] == found.base_attainment[0]


def test_all_starts_get_the_same_requests() -> None:
    first, again = TRIAL.scenario(1), TRIAL.scenario(1)
    assert first.arrivals == again.arrivals
    assert len(first.arrivals) == ENDS[-1]


def test_the_tables_have_errors_and_gains() -> None:
    results = [
        StartResult(
            "empty", "no models", seed, 120, 1.0, [None, None, 30.0, 20.0, 10.0, 9.0], [None] * 6, [0.75] * 6, [0.5] * 6
        )
        for seed in range(2)
    ]
    text = page("poisson", results)
    assert "| no models | TTFT | 120 | - | - | 30.0 | 20.0 | 10.0 | 9.0 |" in text
    assert "| no models | 25.0 [25.0, 25.0] |" in text
    assert figures("poisson", results)["cold_start_gain_points.poisson.empty.no_models.50"] == pytest.approx(25.0)
