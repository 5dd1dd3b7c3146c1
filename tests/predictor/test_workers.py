"""Tests of several workers on one port, which clients see as one server."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import open_store
from predictor.shared_totals import SharedTotals, create_slots, sum_totals
from predictor.statistics import Statistics, Timing
from tests.live import PATIENCE_S, call, until
from tests.predictor.models import pair
from tests.predictor.process import Predictor, predictor_process
from tests.predictor.test_v1 import ROW, SUM


def counted(running: Predictor) -> int:
    page = call(f"{running.url}/metrics")[1]
    match = re.search(r'^nv_inference_request_success\{model="ttft"\} (\d+)$', page, re.MULTILINE)
    return int(match[1]) if match else 0


@pytest.mark.slow
def test_two_workers_answer_count_and_stop_as_one_server(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.publish(pair(1.0))
    with predictor_process(tmp_path, "--workers", "2") as running:
        parent = psutil.Process(running.process.pid)
        until(lambda: len(parent.children()) == 2)
        until(lambda: all(child.net_connections("tcp") for child in parent.children()))
        for _ in range(60):
            assert call(f"{running.url}/v1/ttft", ROW)[1]["ttft_ms"] == SUM
        # Any worker may answer, so each of these pages must count all requests.
        until(lambda: [counted(running) for _ in range(8)] == [60] * 8)
        store.publish(pair(2.0))
        until(lambda: {call(f"{running.url}/v1/ttft", ROW)[1]["ttft_ms"] for _ in range(8)} == {2 * SUM})

        first = {child.pid for child in parent.children()}
        parent.children()[0].kill()
        until(lambda: len({child.pid for child in parent.children()} - first) == 1)
        assert call(f"{running.url}/readyz")[0] == 200

        children = parent.children()
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=PATIENCE_S)
        assert running.process.returncode == 0, output
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in output
    assert "starting another" in output


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--port", "0"], "needs a --port"),
        (["--port", "18555", "--model-control-mode", "explicit"], "only one worker"),
    ],
)
def test_flags_that_workers_do_not_support_are_refused(flags: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--workers", "2", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    assert expected in result.stderr.splitlines()[-1]


def statistics(requests: int) -> Statistics:
    made = Statistics()
    for rows in range(1, requests + 1):
        made.count(rows, Timing(1000, 0, 2000, 500))
    return made


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_each_worker_sees_the_others_totals(requests: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "totals"
        create_slots(path, len(requests))
        shared = [SharedTotals(index, path) for index in range(len(requests))]
        own = [{"ttft": statistics(number)} for number in requests]
        for one, totals in zip(shared, own, strict=True):
            one.write(totals)
        for one, totals in zip(shared, own, strict=True):
            together = sum_totals([totals, *one.others()])["ttft"]
            assert together.succeeded == sum(requests)
            assert together.rows == sum(number * (number + 1) // 2 for number in requests)
            assert sum(together.buckets) == sum(requests)


def test_a_partly_written_slot_keeps_its_previous_content(tmp_path: Path) -> None:
    path = tmp_path / "totals"
    create_slots(path, 2)
    writer, reader = SharedTotals(0, path), SharedTotals(1, path)
    assert reader.others() == []
    writer.write({"ttft": statistics(3)})
    assert reader.others()[0]["ttft"].succeeded == 3
    with open(path, "r+b") as file:
        file.seek(20)
        file.write(b"\xff")
    assert reader.others()[0]["ttft"].succeeded == 3
    writer.write({"ttft": statistics(4)})
    assert reader.others()[0]["ttft"].succeeded == 4
