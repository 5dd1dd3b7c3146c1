"""An external load generator, wrk, and what the asked server's process spent meanwhile."""

import math
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import psutil

_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %f %f %f %d\\n", summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_PATIENCE_S = 15
_LOOK_S = 0.1
_RESULT = re.compile(r"^RESULT (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class ServerMeasurement:
    """One measurement. `cpu_s` is the server process's own, NaN where its process is not known."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class MeasuredServer:
    """A server to be asked."""

    url: str
    process: psutil.Process | None

    @property
    def rss_mib(self) -> float:
        return self.process.memory_info().rss / 2**20 if self.process else np.nan

    @property
    def cpu_s(self) -> float:
        """CPU time that its process has spent, NaN where that is not known."""
        if not self.process:
            return np.nan
        times = self.process.cpu_times()
        return float(times.user + times.system)


def require_wrk() -> None:
    """RuntimeError when the load generator is not there."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed: apt-get install wrk")


def drawn_rows(rows: int) -> list[dict[str, float]]:
    """So many different rows, the same ones each time."""
    random = np.random.default_rng(rows)
    return [
        {
            "kv_cache_percentage": round(random.random(), 4),
            "input_token_length": int(random.integers(10, 8000)),
            "num_request_waiting": int(random.integers(0, 12)),
            "num_request_running": int(random.integers(0, 64)),
            "num_tokens_generated": int(random.integers(0, 500)),
            "prefix_cache_score": round(random.random(), 4),
        }
        for _ in range(rows)
    ]


def rows_body(rows: int | None) -> bytes:
    """A prediction request of so many rows; of a single one for /predict when None."""
    return msgspec.json.encode(drawn_rows(1)[0] if rows is None else {"requests": drawn_rows(rows)})


def load(target: MeasuredServer, rows: int | None, connections: int, seconds: float) -> ServerMeasurement:
    """Asks for as much as the server can answer, by so many connections at once."""
    path = "/predict" if rows is None else "/predict/bulk/strict"
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "script.lua"
        body.write_bytes(rows_body(rows))
        script.write_text(_SCRIPT.format(body=body))
        command = ["wrk", "-t1", f"-c{connections}", "--timeout", "30s", "-s", str(script)]
        before_s = target.cpu_s
        output = _run([*command, f"-d{math.ceil(seconds)}s", target.url + path], seconds)
        spent_s = target.cpu_s - before_s
        _settle(target)
    match = _RESULT.search(output)
    if not match:
        raise RuntimeError(f"wrk said nothing of its result: {output}")
    requests, took_s, p50_ms, p99_ms, failed = match.groups()
    if not int(requests):
        if seconds > _PATIENCE_S:
            raise RuntimeError(f"{target.url}{path} answered nothing within {seconds:g} s")
        return load(target, rows, connections, 2 * seconds)
    return ServerMeasurement(int(requests), float(took_s), float(p50_ms), float(p99_ms), int(failed), spent_s)


def _run(command: list[str], seconds: float) -> str:
    """What wrk printed. It only knows whole seconds, but tells its result when it is interrupted, too."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate(timeout=None if seconds == int(seconds) else seconds)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return process.communicate()[0]


def _settle(target: MeasuredServer) -> None:
    """A server goes on with what it was asked when wrk hung up, which must not weigh on the next measurement."""
    end_s = time.monotonic() + _PATIENCE_S
    before_s = target.cpu_s
    while time.monotonic() < end_s:
        time.sleep(_LOOK_S)
        now_s = target.cpu_s
        if not now_s - before_s > _LOOK_S / 2:
            return
        before_s = now_s
