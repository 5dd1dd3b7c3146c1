"""Several processes on one port: the kernel deals out the connections, and each process follows the store by itself."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from predictor.exceptions import StartError
from predictor.listener import listen
from predictor.shared_totals import create_slots

logger = logging.getLogger("headroom.predictor")
# How a worker is told which it is, and where all of them write their totals: "index path".
WORKER = "HEADROOM_PREDICTOR_WORKER"
# A worker that ends at once, again and again, shall not take a core for it.
_PAUSE_S = 1.0
_LOOK_S = 0.1


def supervise(count: int, host: str, port: int, arguments: Sequence[str]) -> None:
    """Runs so many workers until SIGTERM or SIGINT, and another for each that ends by itself. StartError."""
    if not port:
        raise StartError("--workers needs a --port, so that all of them listen on the same one")
    # Workers share their port with anybody who shares it too; hence nobody may be there before.
    listen(host, port).close()
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory(prefix="headroom-predictor-") as folder:
        totals = Path(folder) / "totals"
        create_slots(totals, count)
        workers = [_start(index, totals, arguments) for index in range(count)]
        try:
            while not stopping:
                time.sleep(_LOOK_S)
                for index, worker in enumerate(workers):
                    if worker.poll() is not None and not stopping:
                        workers[index] = _succeed(worker, index, totals, arguments)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


def own_place() -> tuple[int, Path] | None:
    """This worker's index and the file of the totals; None for a predictor of one process."""
    index, _, path = os.environ.get(WORKER, "").partition(" ")
    return (int(index), Path(path)) if path else None


def _succeed(
    ended: "subprocess.Popen[bytes]", index: int, totals: Path, arguments: Sequence[str]
) -> "subprocess.Popen[bytes]":
    """Another worker for one that was killed; StartError for one that gave up by itself, as the next would."""
    if ended.returncode == 1:
        raise StartError(f"worker {index} could not go on; what it said stands above")
    logger.error("worker %d ended with status %d; another is started", index, ended.returncode)
    time.sleep(_PAUSE_S)
    return _start(index, totals, arguments)


def _start(index: int, totals: Path, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "predictor", *arguments]
    return subprocess.Popen(command, env=os.environ | {WORKER: f"{index} {totals}"})
