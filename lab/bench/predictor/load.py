"""An external load generator, wrk, with the CPU time of the server's process."""

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
# Seconds to wait for a first answer, and for a server to become idle.
_PATIENCE_S = 15
# Seconds between two looks at the server's CPU time.
_LOOK_S = 0.1
_RESULT = re.compile(r"^RESULT (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class ServerMeasurement:
    """One measurement. `cpu_s` is the server process's CPU time, or NaN if the process is unknown."""

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
    """A server to measure."""

    url: str
    process: psutil.Process | None

    @property
    def rss_mib(self) -> float:
        return self.process.memory_info().rss / 2**20 if self.process else np.nan

    @property
    def cpu_s(self) -> float:
        """The CPU time of its process so far, or NaN if the process is unknown."""
        if not self.process:
            return np.nan
        times = self.process.cpu_times()
        return float(times.user + times.system)


def require_wrk() -> None:
    """Raise RuntimeError if wrk is not installed."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed: apt-get install wrk")


def drawn_rows(rows: int) -> list[dict[str, float]]:
    """Return `rows` different rows, the same at each call."""
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
    """Return the body of a prediction request with `rows` rows; with None, that of a single row for /predict."""
    return msgspec.json.encode(drawn_rows(1)[0] if rows is None else {"requests": drawn_rows(rows)})


def load(target: MeasuredServer, rows: int | None, connections: int, seconds: float) -> ServerMeasurement:
    """Load the server with as many requests as it can answer, over `connections` connections."""
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
    if output and not match:
        raise RuntimeError(f"wrk printed no result: {output}")
    if not match or not int(match[1]):
        if seconds > _PATIENCE_S:
            raise RuntimeError(f"{target.url}{path} did not answer within {seconds:g} s")
        return load(target, rows, connections, 2 * seconds)
    requests, took_s, p50_ms, p99_ms, failed = match.groups()
    return ServerMeasurement(int(requests), float(took_s), float(p50_ms), float(p99_ms), int(failed), spent_s)


def _run(command: list[str], seconds: float) -> str:
    """Run wrk, and return its output. wrk knows only whole seconds, but it also reports when it is interrupted.

    The output is empty if wrk was interrupted before it began, as may happen on a busy machine.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate(timeout=None if seconds == int(seconds) else seconds)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return process.communicate()[0]


def _settle(target: MeasuredServer) -> None:
    """Wait until the server is idle. After wrk ends, it still works on requests, and would disturb the next run."""
    end_s = time.monotonic() + _PATIENCE_S
    before_s = target.cpu_s
    while time.monotonic() < end_s:
        time.sleep(_LOOK_S)
        now_s = target.cpu_s
        if not now_s - before_s > _LOOK_S / 2:
            return
        before_s = now_s
