import re

import pytest

from scripts.evaluation.progress import Meter


def test_a_file_gets_lines_in_place_of_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(preparations=1, searches=2, other_runs=4, line_every_s=0) as meter:
        meter.prepared("poisson")
        for number in range(5):
            meter.ran(f"poisson slo at {number}/s")
        meter.searched(5)
        meter.ran("poisson slo at 9/s")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 of 16 runs: poisson slo at 0/s"
    assert re.fullmatch(r"6 of 14 runs, \d:\d\d:\d\d left: poisson slo at 9/s", lines[5])


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(preparations=1, searches=2, other_runs=4) as meter:
        for _ in range(5):
            meter.ran("poisson slo")
    assert "of 16 runs" not in capsys.readouterr().err
