"""A trainer over HTTP: its speed of ingestion, and the latency of its answers during fits."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from rich.progress import track

from headroom.processes.ports import free_port
from lab.bench.trainer.law import make_entries

BATCH_ROWS = 1_000
_PASSES_WATCHED = 5
# Seconds within which a pass must end.
_SLOWEST_PASS_S = 20.0


@contextmanager
def own_server(module: str, *flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server of this project as a process. Yield its URL and the process."""
    port = free_port()
    command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(f"{url}/healthz"):
            if process.poll() is not None:
                raise RuntimeError(f"{module} ended with status {process.returncode}: run `{' '.join(command)}`")
            time.sleep(0.05)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def trainer_flags(folder: Path, interval_s: float) -> list[str]:
    flags = ["--model-store", str(folder / "store"), "--retraining-interval-sec", str(interval_s)]
    return [*flags, "--sample-journal", str(folder / "journal")]


def ask(url: str, body: bytes | None = None) -> tuple[float, Any]:
    """Send a request. Return the time to the answer in ms, and the answer."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    started_at = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        text = response.read()
    took_ms = (time.perf_counter() - started_at) * 1000
    try:
        return took_ms, json.loads(text)
    except ValueError:
        return took_ms, text


def send(url: str, entries: list[dict[str, Any]]) -> float:
    return ask(f"{url}/add_training_data_bulk", msgspec.json.encode({"entries": entries}))[0]


def flush(url: str) -> None:
    """Empty the trainer's window."""
    ask(f"{url}/flush", b"{}")


def ingestion(url: str, batches: int) -> dict[str, float]:
    """Return the rate of bulk requests sent one after the other, by their median time, and the time's p99."""
    bodies = [msgspec.json.encode({"entries": make_entries(BATCH_ROWS, seed)}) for seed in range(batches)]
    ask(f"{url}/add_training_data_bulk", bodies[0])
    took_ms = [ask(f"{url}/add_training_data_bulk", body)[0] for body in track(bodies, "ingestion")]
    return {"ingest_rows_per_s": BATCH_ROWS / np.median(took_ms) * 1000, "ingest_p99_ms": np.percentile(took_ms, 99)}


def during_fits(url: str, seconds: float) -> dict[str, float]:
    """Return the p99 of answers to bulk requests of 100 rows and to /healthz, while the trainer fits all the time."""
    bodies = [msgspec.json.encode({"entries": make_entries(100, seed)}) for seed in range(50)]
    found: dict[str, list[float]] = {"ingest": [], "healthz": []}
    end = time.monotonic() + seconds

    def ingest() -> None:
        for index in range(1_000_000):
            if time.monotonic() > end:
                return
            found["ingest"].append(ask(f"{url}/add_training_data_bulk", bodies[index % len(bodies)])[0])
            time.sleep(0.02)

    thread = threading.Thread(target=ingest)
    thread.start()
    while time.monotonic() < end:
        found["healthz"].append(ask(f"{url}/healthz")[0])
        time.sleep(0.01)
    thread.join()
    return {f"{name}_p99_during_fit_ms": np.percentile(values, 99) for name, values in found.items()}


def pass_s(url: str, interval_s: float, rows: int = 10_000) -> float:
    """Return the time of a pass over `rows` samples: the time between two ends of passes, less the interval.

    Raise RuntimeError if the server ends too few passes in time.
    """
    flush(url)
    for seed in range(rows // BATCH_ROWS):
        send(url, make_entries(BATCH_ROWS, seed))
    ends: list[float] = []
    seen = None
    deadline = time.monotonic() + _PASSES_WATCHED * (interval_s + _SLOWEST_PASS_S)
    while len(ends) <= _PASSES_WATCHED:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} ended only {len(ends)} passes in time; see its log")
        send(url, make_entries(1, len(ends)))
        last = ask(f"{url}/data/status")[1]["last_retrain"]
        if last != seen:
            seen = last
            ends.append(time.monotonic())
        time.sleep(0.02)
    # The first pass may have fewer rows.
    return max(float(np.median(np.diff(ends[1:]))) - interval_s, 1e-3)


def _answers(url: str) -> bool:
    try:
        return ask(url)[0] >= 0
    except OSError:
        return False
