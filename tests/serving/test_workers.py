"""Tests of a supervising process with workers that only start and wait."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from serving.workers import Place, own_place
from tests.live import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import asyncio, os, sys
from serving.life import live
from serving.workers import own_place

place = own_place("worker")

class Worker:
    async def start(self):
        (place.folder / f"{place.index} of {place.count}: {os.getpid()}").touch()
        if sys.argv[1:] == ["give up"] and not place.is_first:
            while len(list(place.folder.glob("* of *"))) < place.count:
                await asyncio.sleep(0.01)
            sys.exit(1)

    async def run(self):
        await asyncio.sleep(600)

    async def end(self, signals):
        pass

live(Worker())
"""
SUPERVISOR = """
import pathlib, sys
from serving.exceptions import StartError
from serving.workers import supervise

folder = pathlib.Path(sys.argv[1])
try:
    supervise("worker", 2, folder, sys.argv[2:], lambda index: (folder / f"lost {index}").touch())
except StartError as error:
    sys.exit(str(error))
"""


@contextmanager
def supervised(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a supervisor of two workers; yield its process once both workers have started."""
    (folder / "worker.py").write_text(WORKER)
    shared = folder / "shared"
    shared.mkdir()
    command = [sys.executable, "-c", SUPERVISOR, str(shared), *arguments]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: len(started(folder)) == 2)
            yield process
        finally:
            process.kill()


def started(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shared").glob("* of *"))


def workers(folder: Path) -> list[psutil.Process]:
    pids = (int(name.rpartition(" ")[2]) for name in started(folder))
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def test_each_worker_knows_its_place_and_ends_with_a_signal_to_the_first_process(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        assert [name.partition(":")[0] for name in started(tmp_path)] == ["0 of 2", "1 of 2"]
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output) == (0, "")
    assert workers(tmp_path) == []


def test_a_killed_worker_is_replaced_at_its_place(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        workers(tmp_path)[1].kill()
        until(lambda: len(started(tmp_path)) == 3)
        assert started(tmp_path)[2].startswith("1 of 2")
        assert (tmp_path / "shared" / "lost 1").exists()
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output) == (0, "worker 1 ended with status -9; starting another\n")


def test_a_worker_that_gives_up_ends_all_workers(tmp_path: Path) -> None:
    with supervised(tmp_path, "give up") as process:
        _, output = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output) == (1, "worker 1 gave up; see its error above\n")
    assert workers(tmp_path) == []


def test_workers_end_when_the_first_process_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        left = workers(tmp_path)
        process.kill()
        _, output = process.communicate(timeout=PATIENCE_S)
    assert psutil.wait_procs(left, timeout=PATIENCE_S)[1] == []
    assert output.count("the process that started this one has ended") == 2


def test_a_process_without_a_supervisor_has_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADROOM_WORKER_WORKER", raising=False)
    assert own_place("worker") is None
    monkeypatch.setenv("HEADROOM_WORKER_WORKER", f"1 3 {tmp_path}/with space")
    assert own_place("worker") == Place(1, 3, tmp_path / "with space")
    assert own_place("other") is None
