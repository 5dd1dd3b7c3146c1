"""Tests of starting and stopping each server as a process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from headroom.processes.ports import free_port
from tests.live import PATIENCE_S, call, until

SERVERS = ("trainer", "predictor", "simulator", "epp")


@contextmanager
def started(
    module: str, port: int, folder: Path, *by: str, more: Sequence[str] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """Run a server and yield its process; with `by`, yield the process of `by`, which starts the server."""
    flags = {
        "trainer": ["--port", str(port), "--model-store", str(folder)],
        "predictor": ["--port", str(port), "--grpc-port", "0", "--model-store", str(folder)],
        "simulator": ["--port", str(port)],
        "epp": [
            "--metrics-port",
            str(port),
            "--grpc-port",
            "0",
            "--grpc-health-port",
            "0",
            "--endpoints",
            "127.0.0.1:1",
        ],
    }[module]
    command = [*by, sys.executable, "-m", module, "--host", "127.0.0.1", *flags, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def alive(port: int) -> bool:
    try:
        return call(f"http://127.0.0.1:{port}/metrics")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", SERVERS)
def test_a_signal_ends_a_server_with_status_0_and_no_traceback(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    port = free_port()
    with started(module, port, tmp_path) as process:
        until(lambda: alive(port))
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize("module", SERVERS)
def test_a_taken_port_is_reported_in_one_line(module: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with started(module, port, tmp_path) as process:
            output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 1
    last = output.splitlines()[-1]
    assert f"can't listen on 127.0.0.1:{port}" in last
    assert "Traceback" not in output


STARTER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], env=os.environ | {"HEADROOM_PARENT": str(os.getpid())})
process.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", SERVERS)
def test_a_server_ends_when_its_parent_is_killed(module: str, tmp_path: Path) -> None:
    port = free_port()
    with started(module, port, tmp_path, sys.executable, "-c", STARTER) as starter:
        until(lambda: alive(port))
        left = psutil.Process(starter.pid).children(recursive=True)
        starter.kill()
        assert psutil.wait_procs(left, timeout=PATIENCE_S)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(("module", "flags"), [("predictor", []), ("epp", ["--shutdown-delay", "1h"])])
def test_workers_end_when_their_supervisor_is_killed(module: str, flags: list[str], tmp_path: Path) -> None:
    port = free_port()
    with started(module, port, tmp_path, more=["--workers", "2", *flags]) as first:
        until(lambda: alive(port))
        until(lambda: len(psutil.Process(first.pid).children()) == 2)
        left = psutil.Process(first.pid).children()
        first.kill()
        assert psutil.wait_procs(left, timeout=PATIENCE_S)[1] == []


def test_a_picker_ends_if_its_first_worker_cannot_start() -> None:
    flags = ["--workers", "2", "--metrics-port", str(free_port()), "--endpoints", "nonsense"]
    command = [sys.executable, "-m", "epp", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    assert "endpoint 'nonsense': expected [name=]host:port" in result.stderr
