"""Several processes on one port: the kernel deals out the connections, and their counts are in shared memory."""

import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from epp.exceptions import ConfigError
from epp.pool.state import PoolState
from epp.workers.prefix_ring import rings_bytes

logger = logging.getLogger("headroom.epp.workers")

_PLACE = "HEADROOM_EPP_WORKER"
_STATE, _RINGS = "state", "prefixes"
# A worker that ends at once, again and again, shall not take a core for it.
_PAUSE_S = 1.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many workers a process is, and the folder that they share.

    Worker 0 alone finds the endpoints and scrapes them, and says to the others what there is.
    """

    index: int
    count: int
    folder: Path

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def state(self) -> PoolState:
        return PoolState(_map_file(self.folder / _STATE), self.index, self.count)

    def rings(self) -> mmap.mmap:
        return _map_file(self.folder / _RINGS)


def own_place() -> Place | None:
    """This process's place; None for a picker of one process."""
    index, _, rest = os.environ.get(_PLACE, "").partition(" ")
    count, _, folder = rest.partition(" ")
    return Place(int(index), int(count), Path(folder)) if folder else None


def supervise(count: int, arguments: Sequence[str]) -> None:
    """Runs so many workers until SIGTERM or SIGINT, and another for each that dies. ConfigError when one gives up."""
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory(prefix="headroom-epp-") as name:
        folder = Path(name)
        (folder / _STATE).write_bytes(bytes(PoolState.size_bytes(count)))
        (folder / _RINGS).write_bytes(bytes(rings_bytes(count)))
        state = Place(0, count, folder).state()
        state.clear_all()
        workers = [_start(Place(index, count, folder), arguments) for index in range(count)]
        try:
            while not stopping:
                time.sleep(_LOOK_S)
                for index, worker in enumerate(workers):
                    if worker.poll() is not None and not stopping:
                        _judge(index, worker.returncode)
                        state.clear_worker(index)
                        workers[index] = _start(Place(index, count, folder), arguments)
        finally:
            _end(workers)


def _judge(index: int, status: int) -> None:
    """ConfigError for a worker that gave up by itself, as the next would; a pause for one that was killed."""
    if status == 1:
        raise ConfigError(f"worker {index} could not go on; what it said stands above")
    logger.error("worker %d ended with status %d; another is started", index, status)
    time.sleep(_PAUSE_S)


def _end(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        with suppress(ProcessLookupError):
            worker.terminate()
    for worker in workers:
        worker.wait()


def _start(place: Place, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    environment = os.environ | {_PLACE: f"{place.index} {place.count} {place.folder}"}
    return subprocess.Popen([sys.executable, "-m", "epp", *arguments], env=environment)


def _map_file(path: Path) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)
