import json
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.loop.picture import COLOURS
from lab.loop.policies import ENVOY_POLICIES, PICKER_POLICIES, WARM_UP
from lab.loop.report import prediction
from tests.live import PATIENCE_S, until

# The demo's ports are fixed, so one worker runs all of these.
pytestmark = pytest.mark.xdist_group("demo")

COMMAND = [sys.executable, "-m", "lab.loop"]
ROOT = Path(__file__).parents[3]


def run_line(line: str) -> str:
    """Run a printed curl line, and return its answer."""
    return subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


OTHERS: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Remember the processes that earlier tests keep running for the whole session."""
    OTHERS.clear()
    OTHERS.update(psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    """Find those that run. What has ended and lost its parent stays, as a zombie of this process."""
    found = [child for child in psutil.Process().children(recursive=True) if child not in OTHERS]
    return [child for child in found if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the test runs the demo's curl lines, and there is no curl")
def test_the_demo_compares_policies_and_leaves_nothing_running(tmp_path: Path) -> None:
    figures, picture = tmp_path / "out.json", tmp_path / "ttft.svg"
    command = [*COMMAND, "--seconds", "48", "--json", str(figures), "--picture", str(picture), "--keep"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        lines = [""]
        while not lines[-1].strip().startswith("ls "):
            lines.append(demo.stdout.readline())
            assert demo.poll() is None, lines
        answers = [run_line(line) for line in lines if "curl" in line]
        demo.send_signal(2)
        assert demo.wait(PATIENCE_S) == 0
    output = "".join(lines)
    assert '"ttft_ms":' in answers[0]
    assert '"tpot_ms":' in answers[1]
    assert '"generation":' in answers[0]
    assert "data: [DONE]" in answers[2]
    assert '"profile":"slo"' in answers[3]
    assert '"recent_tpot_ms"' in answers[4]
    assert '"published"' in answers[5]
    document = json.loads(figures.read_text())
    assert set(document["policies"]) == {"round-robin", "default", "slo"}
    for policy in document["policies"].values():
        assert policy["errors"] == 0
        assert policy["requests"] > 40
        assert set(policy["ttft_ms"]) == set(policy["tpot_ms"]) == {"p50", "p95", "p99"}
        assert policy["goodput_rps"] > 0
    assert document["policies"]["slo"]["slo_attainment"] > document["policies"]["round-robin"]["slo_attainment"]
    assert document["generations"] >= 2
    assert document["prediction"]["rows"] > 0
    assert document["prediction"]["ttft_mape"] > 0
    assert "first model published" in output
    assert picture.read_text().startswith("<?xml")
    assert not children()


def test_a_busy_port_ends_the_demo_with_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 8002)):
        result = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    assert "port 8002, which predictor-2 needs, is taken" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert not children()


@pytest.mark.slow
def test_ctrl_c_stops_everything() -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        # A process for each part, and the demo itself.
        until(lambda: len(children()) >= 11 or demo.poll() is not None)
        assert demo.poll() is None
        demo.send_signal(2)
        output = demo.stdout.read()
        assert demo.wait(PATIENCE_S) == 130
    assert "nothing is left running" in output
    assert not children()


@pytest.mark.slow
def test_a_crashed_part_ends_the_demo_with_its_name() -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        until(lambda: bool(pickers()) or demo.poll() is not None)
        assert demo.poll() is None
        pickers()[0].kill()
        output = demo.stdout.read()
        assert demo.wait(PATIENCE_S) == 1
    assert "epp ended with status -9" in output
    assert not children()


def pickers() -> list[psutil.Process]:
    return [process for process in children() if "lab.loop.picker" in _command(process)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def decision(predicted: float | None, actual: float | None, profile: str = "slo") -> dict[str, object]:
    both = None if predicted is None else {"ttft_ms": predicted, "tpot_ms": predicted}
    return {"wanted_profile": profile, "predicted": both, "outcome": {"ttft_ms": actual, "tpot_ms": None}}


def test_errors_are_those_of_predicted_and_observed_requests() -> None:
    decisions = [
        decision(110, 100),
        decision(100, 200),
        decision(None, 50),
        decision(100, None),
        decision(9, 9, "default"),
    ]
    found = prediction(decisions)
    assert (found["rows"], found["decisions"], found["decisions_from_predictions"]) == (2, 4, 3)
    assert (found["ttft_mape"], found["ttft_coverage"]) == (30.0, 50.0)
    assert "tpot_mape" not in found


def test_every_policy_has_a_different_colour() -> None:
    colours = [COLOURS[name] for name in (WARM_UP, *ENVOY_POLICIES, *PICKER_POLICIES)]
    assert len(set(colours)) == len(colours)
