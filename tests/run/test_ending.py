"""A test run that a signal ends leaves no process behind."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.live import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("control_plane_programs"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
# Each test starts processes and waits: servers, a process that ignores signals, and a process whose parent is gone.
SERVERS = """
import subprocess, time
from pathlib import Path
from tests.epp.process import picker_process
from tests.kubernetes.control_plane import ControlPlane

def test_picker(tmp_path):
    with picker_process(tmp_path):
        Path("{folder}/picker").touch()
        time.sleep(600)

def test_control_plane(tmp_path):
    with ControlPlane(tmp_path):
        Path("{folder}/control-plane").touch()
        time.sleep(600)
"""
STUBBORN = """
import subprocess, time
from pathlib import Path

def test_stubborn():
    subprocess.run(["sh", "-c", "trap '' TERM INT; setsid sleep 600 & exit 0"], check=True)
    with subprocess.Popen(["sh", "-c", "trap '' TERM INT; sleep 600; sleep 600"], start_new_session=True):
        Path("{folder}/stubborn").touch()
        try:
            time.sleep(600)
        finally:
            time.sleep(600)
"""


@contextmanager
def run(
    folder: Path, tests: str, awaited: set[str], command: list[str]
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a test run and wait until its tests have made the files `awaited`.

    Yield the run's process and the mark that all processes of the run have in their environment.
    """
    file = folder / "test_waiting.py"
    file.write_text(tests.format(folder=folder))
    mark = f"HEADROOM_TEST_RUN={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")]) | {"PYTHONPATH": str(ROOT)}
    for name in list(environment):
        if name.startswith("PYTEST"):
            del environment[name]
    with subprocess.Popen(
        [sys.executable, *command, str(file)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            until(lambda: all((folder / name).exists() for name in awaited) or process.poll() is not None, 240)
            yield process, mark
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def processes(mark: str) -> list[str]:
    """Return the command lines of the processes whose environment has the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


PYTEST = ["-m", "pytest", "-p", "tests.run.ending", "-p", "no:cacheprovider", "-c", os.devnull]
# The stubborn test never ends by itself: each run waits for the whole of this time.
SHORT_GRACE = "--grace=1"


@pytest.mark.parametrize(
    ("number", "options", "tests", "awaited"),
    [
        (signal.SIGTERM, ["-n", "2"], SERVERS, {"picker", "control-plane"}),
        (signal.SIGINT, ["-n", "2"], SERVERS, {"picker", "control-plane"}),
        (signal.SIGTERM, ["-n", "1", SHORT_GRACE], STUBBORN, {"stubborn"}),
        (signal.SIGINT, [SHORT_GRACE], STUBBORN, {"stubborn"}),
    ],
    ids=["TERM servers", "INT servers", "TERM stubborn", "INT stubborn alone"],
)
def test_a_signal_ends_all_processes_of_a_run(
    tmp_path: Path, number: signal.Signals, options: list[str], tests: str, awaited: set[str]
) -> None:
    with run(tmp_path, tests, awaited, [*PYTEST, *options]) as (process, mark):
        before = processes(mark)
        assert len(before) > len(awaited), before
        # A terminal sends Ctrl-C to all processes of the group; `kill` sends a signal to one process.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        until(lambda: not processes(mark))
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output


def test_the_command_ends_all_its_parts(tmp_path: Path) -> None:
    with run(tmp_path, STUBBORN, {"stubborn"}, ["-m", "tests.run", *PYTEST[2:], SHORT_GRACE]) as (process, mark):
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
        until(lambda: not processes(mark))
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Ended by SIGTERM." in output
