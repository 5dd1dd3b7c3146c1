"""Several worker processes on one port; the kernel distributes the connections.

The first process only starts the workers, replaces those that are killed, and ends them.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.exceptions import StartError
from serving.life import Signals, live
from serving.parent import PARENT

# Seconds between checks whether a worker has ended.
_CHECK_INTERVAL_S: Final = 0.1
# Seconds before a worker is replaced, so that workers that end at once don't use up a core.
_RESTART_DELAY_S: Final = 1.0
# The exit status of a worker that can't start. Another worker couldn't start either.
_GAVE_UP: Final = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's index, the number of workers, and the folder that they share."""

    index: int
    count: int
    folder: Path

    @property
    def is_first(self) -> bool:
        return self.index == 0


def own_place(package: str) -> Place | None:
    """Return this process's place among the package's workers, or None if it is not a worker."""
    index, _, rest = os.environ.get(_variable(package), "").partition(" ")
    count, _, folder = rest.partition(" ")
    return Place(int(index), int(count), Path(folder)) if folder else None


def supervise(
    package: str, count: int, folder: Path, arguments: Sequence[str], on_loss: Callable[[int], None] | None = None
) -> None:
    """Run `count` processes of `python -m package` until a signal, and replace each one that is killed.

    `on_loss` is called with the index of each worker that has ended. Raise StartError if one can't start.
    """
    live(_Workers(package, count, folder, arguments, on_loss or (lambda index: None)))


class _Workers:
    """A serving.life.Server that consists of worker processes."""

    def __init__(
        self, package: str, count: int, folder: Path, arguments: Sequence[str], on_loss: Callable[[int], None]
    ) -> None:
        self._package = package
        self._logger = logging.getLogger(f"headroom.{package}")
        self._places = [Place(index, count, folder) for index in range(count)]
        self._arguments = arguments
        self._on_loss = on_loss
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        self._processes = [self._begin(place) for place in self._places]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            for place in self._places:
                if (status := self._processes[place.index].poll()) is not None:
                    await self._replace(place, status)

    async def end(self, signals: Signals) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            await asyncio.to_thread(process.wait)

    async def _replace(self, place: Place, status: int) -> None:
        if status == _GAVE_UP:
            raise StartError(f"worker {place.index} gave up; see its error above")
        self._logger.error("worker %d ended with status %d; starting another", place.index, status)
        await asyncio.sleep(_RESTART_DELAY_S)
        self._on_loss(place.index)
        self._processes[place.index] = self._begin(place)

    def _begin(self, place: Place) -> "subprocess.Popen[bytes]":
        named = {_variable(self._package): f"{place.index} {place.count} {place.folder}", PARENT: str(os.getpid())}
        return subprocess.Popen([sys.executable, "-m", self._package, *self._arguments], env=os.environ | named)


def _variable(package: str) -> str:
    return f"HEADROOM_{package.upper()}_WORKER"
