"""The processes of the measured pickers: this project's, and a peer started by a given command."""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from headroom.processes.ports import free_port
from lab.bench.epp.bench import Bench, Latency, Peer
from lab.bench.epp.target import MeasuredPicker

_ROOT = Path(__file__).parents[3]
_READY_S = 60.0
_STOP_S = 3.0


@dataclass(frozen=True)
class Setting:
    """A picker's settings.

    `slo` is whether requests will ask for predictions. With `remote`, this project's picker asks a prediction server;
    otherwise it predicts in its own process. `flags` are for this project's picker.
    """

    endpoints: Sequence[str]
    slo: bool = False
    remote: bool = False
    refresh: str = "50ms"
    secure: bool = False
    flags: Sequence[str] = ()


@cache
def has_flag(flag: str) -> bool:
    """Return whether this project's picker has the flag."""
    command = [sys.executable, "-m", "epp", "--help"]
    return f"{flag} " in subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout


@contextmanager
def own_picker(bench: Bench, setting: Setting, name: str = "ours") -> Iterator[MeasuredPicker]:
    """Run this project's picker. Raise RuntimeError if it doesn't start."""
    prediction = _prediction_flags(bench.latency, setting.remote) if setting.slo else []
    with run_picker(setting, [*prediction, *bench.flags], name) as target:
        yield target


@contextmanager
def run_picker(setting: Setting, flags: Sequence[str], name: str) -> Iterator[MeasuredPicker]:
    """Run this project's picker with these flags and the setting's. Raise RuntimeError if it doesn't start."""
    ports = {name: str(free_port()) for name in ("grpc-port", "grpc-health-port", "metrics-port")}
    own_flags = [f"--{name}={port}" for name, port in ports.items()]
    own_flags += ["--host=127.0.0.1", "--pool-name=bench", f"--secure-serving={str(setting.secure).lower()}"]
    # Cheaper picks under load would improve the figures.
    own_flags += ["--degrade-after=0s"]
    own_flags += [f"--refresh-metrics-interval={setting.refresh}", f"--endpoints={','.join(setting.endpoints)}"]
    command = [sys.executable, "-m", "epp", *own_flags, *flags, *setting.flags]
    address = f"127.0.0.1:{ports['grpc-port']}"
    with _start(command, os.environ, f"http://127.0.0.1:{ports['metrics-port']}/metrics", address, name) as target:
        yield target


@contextmanager
def peer_picker(bench: Bench, setting: Setting) -> Iterator[MeasuredPicker]:
    """Run the peer with `setting`, or use one that runs already. Raise RuntimeError if it doesn't start."""
    peer = bench.peer or Peer()
    if peer.address:
        yield MeasuredPicker("peer", peer.address, metrics_url=peer.metrics_url)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "endpoints.yaml"
        file.write_text(_endpoints_file(setting.endpoints))
        ports = {name: str(free_port()) for name in ("GRPC_PORT", "HEALTH_PORT", "METRICS_PORT")}
        env = {
            **os.environ,
            **ports,
            "ENDPOINTS": ",".join(setting.endpoints),
            "ENDPOINTS_FILE": str(file),
            "PROFILE": "slo" if setting.slo else "default",
        }
        env |= {"REFRESH_METRICS_INTERVAL": setting.refresh, "SECURE_SERVING": str(setting.secure).lower()}
        latency = bench.latency
        env |= {"PREDICTION_SERVER_URL": latency.prediction_url, "TRAINING_SERVER_URL": latency.training_url}
        address = f"127.0.0.1:{ports['GRPC_PORT']}"
        metrics_url = f"http://127.0.0.1:{ports['METRICS_PORT']}/metrics"
        with _start(shlex.split(peer.command), env, metrics_url, address, "peer") as target:
            yield target


def _prediction_flags(latency: Latency, remote: bool) -> list[str]:
    flags = ["--enable-latency-predictor", f"--training-server-url={latency.training_url}"]
    if remote:
        # With this long timeout, a late prediction counts as slow, and not as missing.
        return [*flags, f"--prediction-server-url={latency.prediction_url}", "--prediction-timeout=500ms"]
    return [*flags, "--latency-client=embedded", f"--model-store={latency.store}"]


def _endpoints_file(endpoints: Sequence[str]) -> str:
    """Return the endpoints as JSON, which is valid YAML. Ports are strings, because some pickers require that."""
    pairs = (endpoint.rpartition(":") for endpoint in endpoints)
    listed = [{"name": f"server-{index}", "address": host, "port": port} for index, (host, _, port) in enumerate(pairs)]
    return json.dumps({"endpoints": listed})


@contextmanager
def _start(
    command: Sequence[str], env: Mapping[str, str], metrics_url: str, address: str, name: str
) -> Iterator[MeasuredPicker]:
    """Start a process, wait until it listens, and stop it at the end. RuntimeError has the end of its log."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=_ROOT, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end_s = time.monotonic() + _READY_S
            while not _listens(address):
                if process.poll() is not None or time.monotonic() > end_s:
                    log.seek(0)
                    words = log.read()[-300:].decode(errors="replace").strip()
                    raise RuntimeError(f"{name} did not start: {words or shlex.join(command)}")
                time.sleep(0.05)
            yield MeasuredPicker(name, address, [psutil.Process(process.pid)], metrics_url)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
