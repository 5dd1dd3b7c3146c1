import re

import pytest

from lab.evaluation.progress import Meter


def test_a_file_gets_lines_instead_of_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(workloads=1, searches=2, other_runs=4, line_every_s=0) as meter:
        meter.finished("poisson")
        for number in range(5):
            meter.ran(f"poisson slo at {number}/s")
        meter.searched(5)
        meter.ran("poisson slo at 9/s")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 of 16 runs: poisson slo at 0/s"
    assert re.fullmatch(r"6 of 14 runs, \d:\d\d:\d\d left: poisson slo at 9/s", lines[5])


def test_existing_results_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(workloads=1, searches=2, other_runs=4, known=10, line_every_s=0) as meter:
        meter.ran("new")
        for _ in range(6):
            meter.reused()
        meter.searched(7)
        meter.ran("new")
        for _ in range(4):
            meter.reused()
        meter.searched(5)
        for _ in range(4):
            meter.ran("new")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" runs")[0] for line in lines[:6]] == [
        "1 of 6",
        "2 of 8",
        "3 of 6",
        "4 of 6",
        "5 of 6",
        "6 of 6",
    ]


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(workloads=1, searches=2, other_runs=4) as meter:
        for _ in range(5):
            meter.ran("poisson slo")
    assert "of 16 runs" not in capsys.readouterr().err
