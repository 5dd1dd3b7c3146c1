"""Our predictor alone: time to ready, large batches compared with onnxruntime, and the cost of swaps."""

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import psutil
from numpy.typing import NDArray

from headroom.processes.ports import free_port
from lab.bench.figures import steps
from lab.bench.predictor.load import MeasuredServer, ServerMeasurement, drawn_rows, load, rows_body
from lab.bench.predictor.stages import counted_ns, shares
from lab.bench.predictor.store import Generations
from lab.bench.trainer.serving import ask
from model_store import ROW_FEATURES

_SWAP_EVERY_S = 0.25


def ready_s(location: str, starts: int) -> float:
    """Return the median time from the start of the process to the first 200 of /readyz."""
    return float(np.median([_ready_s(location) for _ in range(starts + 1)][1:]))


def _ready_s(location: str) -> float:
    port = free_port()
    command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--port", str(port), "--model-store", location]
    began_s = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not _is_ready(port):
            if process.poll() is not None:
                raise RuntimeError(f"predictor ended with status {process.returncode}: run `{' '.join(command)}`")
            time.sleep(0.002)
        return time.perf_counter() - began_s
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def over_onnxruntime(
    target: MeasuredServer, graphs: Sequence[bytes], rows: int = 1000, times: int = 200
) -> dict[str, float]:
    """Compare a bulk request's time with that of onnxruntime alone, in turn.

    onnxruntime runs both models on the same rows with one thread.
    """
    sessions = [_session(graph) for graph in graphs]
    body = rows_body(rows)
    columns = _columns(rows)
    host = target.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    ours, alone = [], []
    before = counted_ns(target.url)
    for _ in steps(range(times), f"bulk of {rows} rows and onnxruntime alone"):
        began_s = time.perf_counter()
        connection.request("POST", "/predict/bulk/strict", body, {"content-type": "application/json"})
        connection.getresponse().read()
        ours.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        for session in sessions:
            session.run(None, {tensor.name: columns[tensor.name] for tensor in session.get_inputs()})
        alone.append(time.perf_counter() - began_s)
    connection.close()
    found = {
        f"bulk{rows}_share_{stage}": share for stage, share in shares(before, counted_ns(target.url), body).items()
    }
    ours_ms, alone_ms = (float(np.median(taken)) * 1000 for taken in (ours, alone))
    return {
        f"bulk{rows}_ms": ours_ms,
        f"ort{rows}_ms": alone_ms,
        f"bulk{rows}_over_ort": ours_ms / alone_ms,
        **found,
    }


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _columns(rows: int) -> dict[str, NDArray[np.float32]]:
    """Return the request's rows as tensors. A missing feature has its default."""
    drawn = drawn_rows(rows)
    return {
        feature.name: np.array([[row.get(feature.name, feature.fill_value)] for row in drawn], dtype=np.float32)
        for feature in ROW_FEATURES
    }


def swaps_under_load(target: MeasuredServer, generations: Generations, seconds: float, rounds: int) -> dict[str, float]:
    """Measure single predictions over 8 connections, in turn with and without a new generation every 0.25 s."""
    with_swaps: list[ServerMeasurement] = []
    without: list[ServerMeasurement] = []
    swapped = 0
    for _ in steps(range(rounds), "swaps under load"):
        without.append(load(target, None, 8, seconds))
        swapper = _Swapper(generations)
        with swapper:
            with_swaps.append(load(target, None, 8, seconds))
        swapped += swapper.swaps
    ratios = [a.p99_ms / b.p99_ms for a, b in zip(with_swaps, without, strict=True)]
    return {
        "swap_failed": sum(one.failed for one in with_swaps),
        "swap_requests": sum(one.requests for one in with_swaps),
        "swap_swaps": swapped,
        "swap_p99_ratio": float(np.median(ratios)),
    }


class _Swapper:
    """Publishes generations while it is entered. The predictor loads each at its next poll."""

    def __init__(self, generations: Generations) -> None:
        self.swaps = 0
        self._generations = generations
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SWAP_EVERY_S):
            self._generations.publish()
            self.swaps += 1


def memory_over_swaps(target: MeasuredServer, generations: Generations, swaps: int) -> dict[str, float]:
    """Return the growth of resident memory from the first tenth of the swaps to the last one."""
    process = target.process or psutil.Process()
    early = 0.0
    for index in steps(range(swaps), "swaps"):
        number = generations.publish()
        ask(f"{target.url}/reload", b"")
        served = ask(f"{target.url}/status")[1]["generation"]
        if served != number:
            raise RuntimeError(f"generation {number} was published, but {served} is served")
        if index == swaps // 10:
            early = process.memory_info().rss
    return {"swaps": swaps, "swaps_rss_growth_mib": (process.memory_info().rss - early) / 2**20}
