"""Starting the pickers that are measured: this project's, and a peer by whatever command starts it."""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.epp_bench.gateway import Shape
from scripts.epp_bench.load import Plan, load
from scripts.epp_bench.target import Target
from scripts.trainer_bench.serving import free_port, own_server

_ROOT = Path(__file__).parents[2]
_READY_S = 60.0
_MANY = "1000000"


@dataclass(frozen=True)
class Setting:
    """What a picker is started with, whoever's it is. `profile` is what will be asked of it: default or slo."""

    endpoints: Sequence[str]
    profile: str
    refresh: str = "1s"
    secure: bool = False
    prediction_url: str = ""
    training_url: str = ""
    flags: Sequence[str] = ()


@dataclass(frozen=True)
class Peer:
    """Another picker: one that runs and knows the endpoints, by address, or a command that starts one for a setting."""

    address: str = ""
    metrics_url: str = ""
    command: str = ""


@contextmanager
def own_picker(setting: Setting) -> Iterator[Target]:
    """This project's picker with the flags of `setting`; predictions only where the setting names a server."""
    ports = {name: str(free_port()) for name in ("grpc-port", "grpc-health-port", "metrics-port")}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    flags += ["--host=127.0.0.1", "--pool-name=bench", f"--secure-serving={str(setting.secure).lower()}"]
    flags += [f"--refresh-metrics-interval={setting.refresh}", f"--endpoints={','.join(setting.endpoints)}"]
    if setting.prediction_url:
        flags += ["--enable-latency-predictor", f"--prediction-server-url={setting.prediction_url}"]
        flags += [f"--training-server-url={setting.training_url}", "--prediction-timeout=200ms"]
    command = [sys.executable, "-m", "epp", *flags, *setting.flags]
    address = f"127.0.0.1:{ports['grpc-port']}"
    with _started(command, os.environ, f"http://127.0.0.1:{ports['metrics-port']}/metrics", address, "ours") as target:
        yield target


@contextmanager
def peer_picker(peer: Peer, setting: Setting) -> Iterator[Target]:
    """The peer, started for `setting` unless it runs already."""
    if peer.address:
        yield Target("peer", peer.address, metrics_url=peer.metrics_url)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "endpoints.yaml"
        file.write_text(_endpoints_file(setting.endpoints))
        ports = {name: str(free_port()) for name in ("GRPC_PORT", "HEALTH_PORT", "METRICS_PORT")}
        env = {**os.environ, **ports, "ENDPOINTS_FILE": str(file), "PROFILE": setting.profile}
        env |= {"REFRESH_METRICS_INTERVAL": setting.refresh, "SECURE_SERVING": str(setting.secure).lower()}
        env |= {"PREDICTION_SERVER_URL": setting.prediction_url, "TRAINING_SERVER_URL": setting.training_url}
        address = f"127.0.0.1:{ports['GRPC_PORT']}"
        metrics_url = f"http://127.0.0.1:{ports['METRICS_PORT']}/metrics"
        with _started(shlex.split(peer.command), env, metrics_url, address, "peer") as target:
            yield target


def _endpoints_file(endpoints: Sequence[str]) -> str:
    """JSON, which is YAML as well. Ports are texts, for pickers that want them so."""
    pairs = (endpoint.rpartition(":") for endpoint in endpoints)
    listed = [
        {"name": f"server-{index}", "address": host, "port": port} for index, (host, _, port) in enumerate(pairs)
    ]
    return json.dumps({"endpoints": listed})


@contextmanager
def _started(
    command: Sequence[str], env: Mapping[str, str], metrics_url: str, address: str, name: str
) -> Iterator[Target]:
    """The process, from when it listens until the end. RuntimeError with its last words when it doesn't come up."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=_ROOT, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end_s = time.monotonic() + _READY_S
            while not _listens(address):
                if process.poll() is not None or time.monotonic() > end_s:
                    log.seek(0)
                    words = log.read()[-500:].decode(errors="replace").strip()
                    raise RuntimeError(f"{name} did not come up: {words or shlex.join(command)}")
                time.sleep(0.05)
            yield Target(name, address, [psutil.Process(process.pid)], metrics_url)
        finally:
            process.terminate()
            try:
                process.wait(3)
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
