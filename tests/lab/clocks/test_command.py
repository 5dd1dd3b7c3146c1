import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.clocks.__main__ import main
from tests.live import PATIENCE_S

SCRIPT = Path(__file__).parents[3] / "scripts" / "compare_clocks.py"
POLICIES = ("round-robin", "slo")
# Attainments of the same 60 requests that differ by more than this differ by more than chance.
MARGIN = 0.15
# Tolerances on a busy machine with two cores: the engine's own timing, the time on the path to it, and attainment.
TPOT_PERCENT, TTFT_LATER_MS, ATTAINMENT = 10.0, 60.0, 0.15


@pytest.mark.slow
def test_envoy_and_virtual_time_agree_on_policies_and_latencies(tmp_path: Path) -> None:
    figures, page = tmp_path / "clocks.json", tmp_path / "clocks.md"
    chosen = [flag for policy in POLICIES for flag in ("--policy", policy)]
    # At this low speed, the time that a busy machine adds misses no objectives. Short answers keep the test short.
    flags = ["--seconds", "10", "--speed-factor", "0.25", "--max-output-tokens", "40", "--chances", "1"]
    flags += [*chosen, "--margin", str(MARGIN), "--json", str(figures), "--out", str(page)]
    command = [sys.executable, str(SCRIPT), *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(figures.read_text())
    assert tuple(document["policies"]) == POLICIES
    assert document["order"]["pairs"] == 1
    assert document["order"]["reversed_pairs"] == []
    for phase in (document["low_load"], *document["policies"].values()):
        assert phase["errors"] == 0
        assert phase["envoy"]["requests"] == phase["replayed"]["requests"] == phase["virtual"]["requests"] > 10
        assert phase["apart"]["tpot_percent"] < TPOT_PERCENT
        assert abs(phase["replayed"]["attainment"] - phase["envoy"]["attainment"]) < ATTAINMENT
    envoy, virtual = (document["policies"]["slo"][clock] for clock in ("envoy", "virtual"))
    for side in (envoy, virtual):
        assert abs(sum(side["shares"]) - 1) < 0.01
        assert side["prediction"]["share"] > 50
        assert side["prediction"]["tpot_mdape"] is not None
    assert document["policies"]["round-robin"]["envoy"]["prediction"] is None
    # The path through Envoy, picker and server adds a little time, so tokens are never early.
    assert 0 < document["low_load"]["apart"]["ttft_ms"] < TTFT_LATER_MS
    text = page.read_text()
    assert "all of them are in the same order through Envoy" in text
    assert "\n| slo | Envoy |" in text
    assert "| round-robin | Envoy |" not in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--hardware", "h200"], "no hardware is called 'h200': expected fast, slow"),
        (["--policy", "oracle"], "'oracle' is not one of 'round-robin'"),
        (["--workload", "halving"], "'halving' is not one of"),
        (["--speed-factor", "0"], "0 is not in the range"),
    ],
)
def test_bad_options_are_refused(flags: list[str], said: str) -> None:
    result = CliRunner().invoke(main, flags, catch_exceptions=False)
    assert result.exit_code == 2
    assert said in result.stderr
