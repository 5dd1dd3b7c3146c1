import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.evaluation.__main__ import main
from tests.live import PATIENCE_S

SCRIPT = Path(__file__).parents[3] / "scripts" / "evaluate.py"


def _evaluate(*flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env={"COLUMNS": "200"})


@pytest.mark.slow
def test_an_evaluation_is_resumed_with_another_policy(tmp_path: Path) -> None:
    points, figures = tmp_path / "points.jsonl", tmp_path / "figures.json"
    flags = ["--quick", "--workload", "poisson", "--seconds", "10", "--points", str(points), "--out", str(tmp_path)]
    first = _evaluate(*flags, "--policy", "random")
    assert first.returncode == 0, first.stderr
    assert "goodput_over_tuned was not measured: needs the policy slo and tuned" in first.stderr
    made = points.read_bytes()
    both = ["--policy", "random", "--policy", "round-robin"]
    again = _evaluate(*flags, *both, "--resume", "--jobs", "1", "--json", str(figures))
    assert again.returncode == 0, again.stderr
    assert points.read_bytes().startswith(made)
    document = json.loads(figures.read_text())
    assert document["settings"]["policies"] == ["random", "round-robin", "default"]
    random, in_turn = (document["figures"][f"goodput90_rps.poisson.{name}"] for name in ("random", "round-robin"))
    assert 0 < random < in_turn
    assert document["figures"]["virtual_requests_per_s"] > 1000
    assert "The evaluation was interrupted and resumed" in (tmp_path / "evaluation.md").read_text()
    other = CliRunner().invoke(main, [*flags, "--resume", "--seconds", "20"], catch_exceptions=False)
    assert other.exit_code == 1
    assert "has runs of 10 seconds, not 20: set --seconds 10, or omit --resume" in other.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "magic"], "'magic' is not one of"),
        (["--workload", "calm"], "'calm' is not one of"),
        (["--seeds", "0"], "0 is not in the range"),
        (["--seconds", "1"], "1.0 is not in the range"),
    ],
)
def test_unknown_names_and_bad_numbers_are_refused(flags: list[str], said: str) -> None:
    result = CliRunner().invoke(main, flags, catch_exceptions=False)
    assert result.exit_code == 2
    assert said in result.stderr


def test_help_names_every_option() -> None:
    text = CliRunner().invoke(main, ["--help"], catch_exceptions=False).stdout
    for option in (
        "quick",
        "json",
        "out",
        "workload",
        "policy",
        "seeds",
        "seconds",
        "requests",
        "jobs",
        "resume",
        "points",
    ):
        assert f"--{option}" in text
