import csv
import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab.evaluation.plan import EvaluationPlan
from lab.evaluation.replay.point import PointResult
from lab.evaluation.run import RunFunctions
from lab.evaluation.run_and_report import Output, Subject, run_and_report
from lab.evaluation.studies.bounds import P50Bounds
from tests.lab.evaluation.queue_model import QUALITY, SERVICE_RPS, Queue, judge_rows, prepare, run_point, tpot_bounds

WORKLOADS = ("shared-prefix", "halving")
PLAN = EvaluationPlan(
    WORKLOADS,
    ("round-robin", "default", "tuned", "llmd-default", "slo", "slo-shedding", "oracle", "oracle-shedding"),
    (1, 2),
    60.0,
    600,
    2,
    1.02,
    loads=(0.7, 1.0),
    judged_rows=("halving",),
    has_bounds=True,
)
SUBJECT = Subject(
    {name: Queue() for name in ("poisson", *WORKLOADS)},
    RunFunctions(prepare, run_point, judge_rows, tpot_bounds),
    lambda seconds: seconds / 2,
    lambda workload, requests_per_s, seed, seconds: P50Bounds(least_ms=100.0 * seed, quickest_ms=120.0 * seed),
)


def goodput_of_queue(policy: str, share: float) -> float:
    return SERVICE_RPS * QUALITY[policy] + math.log(1 - share)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one evaluation that several tests read."""
    folder = tmp_path_factory.mktemp("evaluation")
    run_and_report(PLAN, SUBJECT, output_in(folder))
    return folder


def output_in(folder: Path, resume: bool = False) -> Output:
    return Output(folder / "docs", folder / "points.jsonl", folder / "figures.json", resume)


def test_the_evaluation_finds_the_queues_goodputs(folder: Path) -> None:
    figures = json.loads((folder / "figures.json").read_text())["figures"]
    for policy in PLAN.policies:
        for share in (0.9, 0.99):
            found = figures[f"goodput{share * 100:.0f}_rps.halving.{policy}"]
            assert found == pytest.approx(goodput_of_queue(policy, share), rel=0.02)
    ratio = goodput_of_queue("slo", 0.9) / goodput_of_queue("default", 0.9)
    assert figures["goodput_over_default"] == pytest.approx(ratio, rel=0.02)
    ratio = goodput_of_queue("slo-shedding", 0.9) / goodput_of_queue("default", 0.9)
    assert figures["shedding_goodput_over_default"] == pytest.approx(ratio, rel=0.02)
    ratio = goodput_of_queue("slo", 0.9) / goodput_of_queue("llmd-default", 0.9)
    assert figures["slo_goodput_over_llmd_default"] == pytest.approx(ratio, rel=0.02)
    assert figures["worst_goodput_over_default"] <= figures["goodput_over_default"]
    assert figures["e2e_p50_gain_over_tuned_shared_prefix"] == pytest.approx(1.5 / 1.2)
    assert figures["recovery_s"] == 30
    assert figures["recovery_coverage_q90"] == 90
    assert (figures["ttft_mdape"], figures["tpot_mdape"], figures["throughput_over_default"]) == (8, 4, 1)
    assert (figures["tpot_floor"], figures["tpot_mdape_told"]) == (2.5, 3.5)
    assert figures["virtual_requests_per_s"] == pytest.approx(10 / 2 * 100 / 8 * 60 / 0.01)


def test_a_missing_figure_has_its_reason(folder: Path) -> None:
    document = json.loads((folder / "figures.json").read_text())
    assert "goodput_over_closed_formula" not in document["figures"]
    assert document["settings"]["left_out"]["goodput_over_closed_formula"] == "needs the policy closed-formula"
    assert document["settings"]["left_out"]["slo_goodput_over_llmd_predicted"] == "needs the policy llmd-predicted"


def test_the_report_has_every_workload_policy_and_picture(folder: Path) -> None:
    text = (folder / "docs" / "evaluation.md").read_text()
    for name in WORKLOADS:
        assert f"## {name}\n" in text
    for policy in PLAN.policies:
        assert text.count(f"\n| {policy} |") >= 4 * len(WORKLOADS)
    pictures = re.findall(r"!\[[^]]*]\(([^)]*)\)", text)
    assert len(pictures) == 2 * len(WORKLOADS)
    assert all((folder / "docs" / picture).stat().st_size > 1000 for picture in pictures)
    assert "| shared-prefix, halving | tight | 30% | 5 | 2 |" in text
    assert "(`recovery_s`) | ≤ 60 | 30.0 | met |" in text
    assert "(`goodput_over_round_robin`) | ≥ 1.5 |" in text
    assert "| goodput at 90% over that of | slo | oracle | slo-shedding | oracle-shedding |" in text
    assert "(`shedding_goodput_over_default`) | ≥ 1.25 |" in text
    assert "| halving | 4.0 | 2.0 | 4.5 | 3.0 |" in text
    assert re.search(r"\n\| tuned \| [\d,]+ \| - \|\n", text)
    assert re.search(r"\n\| quickest \| 180 \| [\d.]+ \[[\d., ]+\] \|\n", text)
    assert re.search(r"\n\| lower bound \| 150 \| [\d.]+ \[[\d., ]+\] \|\n", text)
    assert "| halving | TTFT | reference | 16.0 | 30.0 | 0.0400 | 85.0 | +0.100 |" in text
    assert "| halving | TTFT | noise floor (neighbours 50 rows apart) | 5.0 | - | 0.0100 | - | - |" in text


def test_each_load_has_tables_and_rows_with_intervals(folder: Path) -> None:
    text = (folder / "docs" / "evaluation.md").read_text()
    assert text.count("\nAt 0.7 times the common load, ") == len(WORKLOADS)
    assert "](evaluation/levels.csv)" in text
    with (folder / "docs" / "evaluation" / "levels.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(WORKLOADS) * len(PLAN.loads) * len(PLAN.policies)
    for row in rows:
        latency_ms = 100 / QUALITY[row["policy"]]
        assert [float(row[f"e2e_p90_ms{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
            [latency_ms * 90 / 50] * 3, rel=1e-4
        )
        assert float(row["attainment_low"]) <= float(row["attainment"]) <= float(row["attainment_high"])
        assert (row["tpot_mdape"] == "") == (row["policy"] != "slo")


def test_all_rows_of_a_table_have_the_same_number_of_cells(folder: Path) -> None:
    lines = (folder / "docs" / "evaluation.md").read_text().splitlines()
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.count("|") == below.count("|")


def test_a_finished_evaluation_is_reported_again_without_new_runs(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "points.jsonl").read_bytes()
    functions = RunFunctions(prepare, _only_the_speed, judge_rows, tpot_bounds)
    output = replace(output_in(folder, resume=True), folder=tmp_path, json_file=None)
    run_and_report(PLAN, replace(SUBJECT, functions=functions), output)
    assert (folder / "points.jsonl").read_bytes() == lines
    again, once = ((place / "evaluation.md").read_text() for place in (tmp_path, folder / "docs"))
    assert again.split("## Targets")[1] == once.split("## Targets")[1]


def _only_the_speed(*arguments: Any) -> PointResult:
    assert arguments[6].endpoints, f"run again: {arguments}"
    return run_point(*arguments)


def _fail_at_slo(*arguments: Any) -> PointResult:
    if arguments[3] == "slo":
        raise ValueError("no such model")
    return run_point(*arguments)


def test_a_failed_evaluation_is_resumed(tmp_path: Path) -> None:
    plan = replace(PLAN, workloads=("shared-prefix",), seeds=(1,))
    output = Output(tmp_path, tmp_path / "points.jsonl", tmp_path / "figures.json")
    with pytest.raises(ValueError, match="no such model") as raised:
        run_and_report(
            plan, replace(SUBJECT, functions=RunFunctions(prepare, _fail_at_slo, judge_rows, tpot_bounds)), output
        )
    assert raised.value.__notes__[0].startswith("shared-prefix: slo at ")
    made = (tmp_path / "points.jsonl").read_bytes()
    assert b'"policy":"default"' in made
    # The writer may have been stopped in the middle of a line.
    (tmp_path / "points.jsonl").write_bytes(made + b'{"workload": "shared-pre')
    summary = run_and_report(plan, SUBJECT, replace(output, resume=True))
    assert (tmp_path / "points.jsonl").read_bytes().startswith(made + b"{")
    assert summary.figures["goodput_over_tuned"].seeds == 1
    text = (tmp_path / "evaluation.md").read_text()
    assert "There is one seed, so there are no intervals." in text
    assert "(one seed, no interval) | met |" in text
    assert "[" not in text.split("\n| slo |")[1].split("|")[0]


def _never_at_the_base(*arguments: Any) -> PointResult:
    point = run_point(*arguments)
    return msgspec.structs.replace(point, attainment=0.8) if arguments[3] == "default" else point


def test_loads_use_the_typical_rate_if_the_base_policy_never_attains_its_share(tmp_path: Path) -> None:
    plan = replace(PLAN, workloads=("shared-prefix",), policies=("default", "slo"), seeds=(1,))
    output = Output(tmp_path, tmp_path / "points.jsonl", tmp_path / "figures.json")
    run_and_report(
        plan, replace(SUBJECT, functions=RunFunctions(prepare, _never_at_the_base, judge_rows, tpot_bounds)), output
    )
    text = (tmp_path / "evaluation.md").read_text()
    assert "At the common load of 5 requests/s" in text
    assert "| default | ≤ 1.1" in text
