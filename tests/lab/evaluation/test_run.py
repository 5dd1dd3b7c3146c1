from dataclasses import replace
from pathlib import Path

import pytest

from lab.evaluation.journal import Journal
from lab.evaluation.plan import EvaluationPlan
from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.report.plots import curve
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.run import RunFunctions, evaluate
from tests.lab.evaluation.queue_model import Queue, judge_rows, prepare, run_point, tpot_bounds

PLAN = EvaluationPlan(
    ("bursts",), ("round-robin", "default", "slo"), (1, 2, 3), 60.0, 600, 1, 1.05, loads=(0.7, 1.0, 1.4)
)


def evaluated(plan: EvaluationPlan, file: Path, resume: bool = False) -> WorkloadResult:
    journal = Journal(file, plan, resume)
    return evaluate(plan, {"bursts": Queue()}, RunFunctions(prepare, run_point, judge_rows, tpot_bounds), journal)[0]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> WorkloadResult:
    return evaluated(PLAN, tmp_path_factory.mktemp("run") / "points.jsonl")


def test_only_searches_cut_runs(result: WorkloadResult) -> None:
    assert any(point.is_cut for point in result.points)
    at_loads = [point for policy in PLAN.policies for load in PLAN.loads for point in result.at_load(policy, load)]
    assert not any(point.is_cut for point in at_loads)
    assert min(point.attainment for point in at_loads) < LEAST_ATTAINMENT


def test_results_depend_neither_on_jobs_nor_on_resuming(result: WorkloadResult, tmp_path: Path) -> None:
    """More jobs end runs in another order. A resumed evaluation has some results from the beginning."""
    evaluated(replace(PLAN, seeds=(1,), loads=(1.4,)), tmp_path / "points.jsonl")
    resumed = evaluated(PLAN, tmp_path / "points.jsonl", resume=True)
    parallel = evaluated(replace(PLAN, jobs=2), tmp_path / "parallel.jsonl")
    for other in (resumed, parallel):
        assert other.goodputs == result.goodputs
        assert other.rates == result.rates
        for load in PLAN.loads:
            assert [other.at_load(policy, load) for policy in PLAN.policies] == [
                result.at_load(policy, load) for policy in PLAN.policies
            ]


def test_an_evaluation_that_has_all_results_prepares_nothing(tmp_path: Path) -> None:
    file, plan = tmp_path / "points.jsonl", replace(PLAN, seeds=(1,), loads=(1.0,), judged_rows=("bursts",))
    made = evaluated(plan, file)
    models = tmp_path / "points.prepared" / f"bursts.{plan.preparation}"
    models.unlink()
    again = evaluated(plan, file, resume=True)
    assert (again.goodputs, again.quality) == (made.goodputs, made.quality)
    assert not models.exists()


def test_a_plotted_attainment_is_never_below_that_of_cut_runs(result: WorkloadResult) -> None:
    rates, intervals = curve(result, "round-robin")
    assert rates
    lowest = min(one.mean for one in intervals)
    assert lowest == pytest.approx(LEAST_ATTAINMENT)
