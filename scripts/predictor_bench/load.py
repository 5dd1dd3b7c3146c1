"""An external load generator, wrk, and what the asked server's process spent meanwhile."""

import re
import shutil
import subprocess
import tempfile
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
_RESULT = re.compile(r"^RESULT (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
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
class Target:
    """A server to be asked."""

    url: str
    process: psutil.Process | None

    @property
    def rss_mib(self) -> float:
        return self.process.memory_info().rss / 2**20 if self.process else np.nan


def require_wrk() -> None:
    """RuntimeError when the load generator is not there."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed: apt-get install wrk")


def rows_body(rows: int | None) -> bytes:
    """A prediction request of so many different rows; of a single one for /predict when None."""
    random = np.random.default_rng(rows or 0)
    drawn = [
        {
            "kv_cache_percentage": round(random.random(), 4),
            "input_token_length": int(random.integers(10, 8000)),
            "num_request_waiting": int(random.integers(0, 12)),
            "num_request_running": int(random.integers(0, 64)),
            "num_tokens_generated": int(random.integers(0, 500)),
            "prefix_cache_score": round(random.random(), 4),
        }
        for _ in range(rows or 1)
    ]
    return msgspec.json.encode(drawn[0] if rows is None else {"requests": drawn})


def load(target: Target, rows: int | None, connections: int, seconds: float) -> Load:
    """Asks for as much as the server can answer, by so many connections at once."""
    path = "/predict" if rows is None else "/predict/bulk/strict"
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "script.lua"
        body.write_bytes(rows_body(rows))
        script.write_text(_SCRIPT.format(body=body))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}",
            "--timeout",
            "30s",
            "-s",
            str(script),
        ]
        before_s = _cpu_s(target)
        output = subprocess.run([*command, target.url + path], capture_output=True, text=True, check=True).stdout
        spent_s = _cpu_s(target) - before_s
    match = _RESULT.search(output)
    if not match:
        raise RuntimeError(f"wrk said nothing of its result: {output}")
    requests, took_s, p50_ms, p99_ms, failed = match.groups()
    return Load(int(requests), float(took_s), float(p50_ms), float(p99_ms), int(failed), spent_s)


def _cpu_s(target: Target) -> float:
    if not target.process:
        return np.nan
    times = target.process.cpu_times()
    return float(times.user + times.system)
