import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from headroom.processes.ports import free_port
from tests.live import PATIENCE_S, call, until


@contextmanager
def running(log: Path, *flags: str, **variables: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Yield a simulator process that answers, and its URL."""
    port = free_port()
    command = [sys.executable, "-m", "simulator", f"--port={port}", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, env={**os.environ, **variables})
    try:
        until(lambda: process.poll() is not None or _answers(port))
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_busy_server_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    log, body = tmp_path / "log", {"model": "m", "prompt": "x", "max_tokens": 20_000}
    busy = 'vllm:num_requests_running{engine="0",model_name="simulated-model"} 1'
    with running(log) as (process, url), ThreadPoolExecutor() as pool:
        answer = pool.submit(call, f"{url}/v1/completions", body)
        until(lambda: busy in call(f"{url}/metrics")[1])
        process.send_signal(number)
        assert answer.result()[0] == 503
        assert process.wait(timeout=PATIENCE_S) == 0
    assert "Traceback" not in log.read_text()


def test_a_flag_overrides_a_variable_and_both_override_the_hardware(tmp_path: Path) -> None:
    variables = {"SIMULATOR_NUM_BLOCKS": "77", "SIMULATOR_BLOCK_TOKENS": "8"}
    with running(tmp_path / "log", "--num-blocks=88", **variables) as (_, url):
        page = str(call(f"{url}/metrics")[1])
    assert 'block_size="8"' in page
    assert 'num_gpu_blocks="88"' in page


def test_a_calibration_brings_its_limits(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--hardware=h100-llama-3.1-8b", "--block-tokens=32") as (_, url):
        page = str(call(f"{url}/metrics")[1])
    assert 'num_gpu_blocks="28181"' in page
    assert 'block_size="32"' in page


def test_a_cost_option_is_refused_for_measured_hardware() -> None:
    command = [sys.executable, "-m", "simulator", "--hardware=h100-llama-3.1-8b", "--base-ms=3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 2
    assert "--base-ms works only with the hardware fast and slow" in result.stderr


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "simulator", f"--port={port}"], capture_output=True, timeout=PATIENCE_S
        )
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}".encode() in result.stderr


@pytest.mark.parametrize("flag", ["--hardware=none", "--speed-factor=0", "--num-blocks=0", "--base-ms=-1"])
def test_a_bad_value_is_refused_with_its_flags_name(flag: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "simulator", flag], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.returncode == 2
    assert flag.partition("=")[0] in result.stderr
