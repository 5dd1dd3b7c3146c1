#!/usr/bin/env python
"""Measures a training server: ingestion, answers during a fit, and a whole pass by window size."""

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from model_store import ROW_FEATURES, ROW_NAMES, open_store
from trainer.fitting import FitSettings
from trainer.training_pass import PassSettings, run_pass
from trainer.window import TargetData

BATCH_ROWS = 1_000
_FAR = "1000000"


def make_entries(rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a law with noise: TTFT grows with the tokens ahead, TPOT with the batch."""
    rng = np.random.default_rng(seed)
    tokens, waiting, running = rng.integers(1, 4000, rows), rng.poisson(2, rows), rng.integers(0, 32, rows)
    kv, prefix, ahead = rng.random(rows), rng.random(rows), rng.integers(0, 20_000, rows)
    ttft = (30 + 0.25 * (tokens * (1 - prefix) + ahead)) * np.exp(rng.normal(0, 0.1, rows))
    tpot = (20 + running + 10 * kv) * np.exp(rng.normal(0, 0.05, rows))
    columns = {
        "kv_cache_percentage": kv,
        "input_token_length": tokens,
        "num_request_waiting": waiting,
        "num_request_running": running,
        "num_tokens_generated": np.ones(rows, dtype=int),
        "prefix_cache_score": prefix,
        "prefill_tokens_in_flight": ahead,
        "actual_ttft_ms": ttft,
        "actual_tpot_ms": tpot,
    }
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


@contextmanager
def own_trainer(folder: Path, interval_s: str) -> Iterator[tuple[str, psutil.Process]]:
    """A trainer of this project as a process, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--model-store", str(folder / "store")]
    flags += ["--sample-journal", str(folder / "journal"), "--retraining-interval-sec", interval_s]
    process = subprocess.Popen([sys.executable, "-m", "trainer", *flags], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while not answers(f"{url}/healthz"):
            time.sleep(0.05)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        return bool(ask(url) >= 0)
    except OSError:
        return False


def ask(url: str, body: bytes | None = None) -> float:
    """How long an answer takes, in ms."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    started_at = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        response.read()
    return (time.perf_counter() - started_at) * 1000


def ingestion(url: str, batches: int) -> dict[str, float]:
    """Bulk requests one after the other; of several runs the median counts."""
    bodies = [msgspec.json.encode({"entries": make_entries(BATCH_ROWS, seed)}) for seed in range(batches)]
    ask(f"{url}/add_training_data_bulk", bodies[0])
    took_ms = [ask(f"{url}/add_training_data_bulk", body) for body in track(bodies, "ingestion")]
    return {"ingest_rows_per_s": BATCH_ROWS / np.median(took_ms) * 1000, "ingest_p99_ms": np.percentile(took_ms, 99)}


def during_fits(url: str, seconds: float) -> dict[str, float]:
    """Answers to bulk requests of 100 rows and to /healthz, while pass follows pass."""
    bodies = [msgspec.json.encode({"entries": make_entries(100, seed)}) for seed in range(50)]
    found: dict[str, list[float]] = {"ingest": [], "healthz": []}
    end = time.monotonic() + seconds

    def ingest() -> None:
        for index in range(1_000_000):
            if time.monotonic() > end:
                return
            found["ingest"].append(ask(f"{url}/add_training_data_bulk", bodies[index % len(bodies)]))
            time.sleep(0.02)

    thread = threading.Thread(target=ingest)
    thread.start()
    while time.monotonic() < end:
        found["healthz"].append(ask(f"{url}/healthz"))
        time.sleep(0.01)
    thread.join()
    return {f"{name}_p99_during_fit_ms": np.percentile(values, 99) for name, values in found.items()}


def passes(sizes: list[int]) -> dict[str, float]:
    """A whole pass over both targets, by window size: fit, export, gate and publish."""
    figures: dict[str, float] = {}
    settings = PassSettings(FitSettings(), 100, 0.1, 5, "bench")
    for size in track(sizes, "passes"):
        data = {name: target(size, name) for name in ("ttft", "tpot")}
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(folder)
            results = [run_pass(data, {}, store, settings) for _ in range(3)]
        for stage in ("fit", "export", "publish", "pass"):
            figures[f"{stage}_{size}_s"] = float(np.median([result.seconds[stage] for result in results]))
        for name, found in results[-1].scores.items():
            figures[f"{name}_mdape_{size}"] = found["mdape"] * 100
            figures[f"{name}_coverage_{size}"] = found["coverage"] * 100
    return figures


def target(size: int, name: str) -> TargetData:
    entries = make_entries(size + 1000, 7)
    defaults = {feature.name: feature.fill_value for feature in ROW_FEATURES}
    x = np.array([[entry.get(column, defaults[column]) for column in ROW_NAMES] for entry in entries], dtype=np.float32)
    y = np.array([entry[f"actual_{name}_ms"] for entry in entries], dtype=np.float32)
    return TargetData(x[1000:], y[1000:], x[:1000], y[:1000])


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--batches", default=100, type=click.IntRange(2), help=f"Bulk requests of {BATCH_ROWS} rows.")
@click.option("--fit-seconds", default=10.0, type=click.FloatRange(1), help="Time to watch answers during fits.")
@click.option("--sizes", default="1000,10000,50000,100000", help="Window sizes of the passes.")
@click.option("--peer", default="", help="URL of another training server with the same API, measured in the same run.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(batches: int, fit_seconds: float, sizes: str, peer: str, json_file: Path | None) -> None:
    """Prints what this project's trainer does on this machine, and the ratios to --peer."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        # A trainer that never fits, so that ingestion is measured alone.
        with own_trainer(Path(folder) / "idle", _FAR) as (url, process):
            figures |= ingestion(url, batches)
            figures["rss_mib"] = process.memory_info().rss / 2**20
        if peer:
            theirs = ingestion(peer.rstrip("/"), batches)
            figures["peer_ingest_ratio"] = figures["ingest_rows_per_s"] / theirs["ingest_rows_per_s"]
        with own_trainer(Path(folder) / "busy", "0.05") as (url, _):
            ingestion(url, 10)
            figures |= during_fits(url, fit_seconds)
    figures |= passes([int(size) for size in sizes.split(",")])
    if "pass_10000_s" in figures:
        figures["refit_10k_s"] = figures["pass_10000_s"]
    console = Console()
    for name, value in figures.items():
        console.print(f"{name:32} {value:>12.4g}", highlight=False)
    if json_file:
        rounded = {name: round(float(value), 5) for name, value in figures.items()}
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        versions = {name: version(name) for name in ("onnxmltools", "onnxruntime", "numpy", "msgspec")}
        settings = {"batches": batches, "fit_seconds": fit_seconds, "sizes": sizes, "peer": bool(peer)}
        document = {"figures": rounded, "machine": machine, "versions": versions, "settings": settings}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
