"""A supervisor of processes: it starts them, waits until they are ready, notices when one ends, and stops them all."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from headroom.processes.exceptions import PartError
from headroom.processes.ports import is_free
from serving.parent import PARENT

T = TypeVar("T")

# Seconds between SIGTERM and SIGKILL.
_STOP_S = 8.0
# A part that lived for less than this has ended at once.
_SHORT_LIFE_S = 10.0
_LONGEST_PAUSE_S = 30.0

# prctl(2): the signal that the kernel sends to a process when its parent has ended.
_PR_SET_PDEATHSIG = 1
# Loaded before any fork, since a child may do little before it runs its program.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Part:
    """A process that listens on `ports`, and answers `ready_url` with 200 once it is ready.

    When a part ends, the loop ends with an error. The loop continues only if a signal killed a `redundant` part.
    It is an error as well if a part isn't ready after `ready_s`.
    """

    name: str
    command: Sequence[str]
    ports: Sequence[int]
    ready_url: str
    env: Mapping[str, str] = field(default_factory=dict)
    redundant: bool = False
    ready_s: float = 60.0


class Supervisor:
    """Runs parts, each with its own log in `folder`. `on_loss` is called with the name of a lost part.

    Lost are redundant parts that a signal killed. With `restart_s`, every part that ends after it was ready is lost,
    and starts again after that many seconds. A part that ends again and again has longer and longer pauses.
    """

    def __init__(self, folder: Path, on_loss: Callable[[str], None], restart_s: float | None = None) -> None:
        self.folder = folder
        self._on_loss = on_loss
        self._restart_s = restart_s
        self._were_ready: set[str] = set()
        self._paused_s: dict[str, float] = {}
        self._parts: dict[str, Part] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, parts: Sequence[Part], on_ready: Callable[[str], None]) -> None:
        """Start all parts, and return when all are ready. Raise PartError if a port is taken or a part isn't ready."""
        for part in parts:
            for port in part.ports:
                if not is_free(port):
                    raise PartError(f"port {port}, which {part.name} needs, is taken")
        for part in parts:
            await self._start(part)
        await self._until_all_ready(parts, on_ready)

    async def restart(self, names: Sequence[str]) -> None:
        """Start ended parts again, and return when they are ready. Raise PartError if one doesn't become ready."""
        await self.end(names)
        for name in names:
            await self._start(self._parts[name])
        await self._until_all_ready([self._parts[name] for name in names], lambda name: None)

    async def end(self, names: Sequence[str]) -> None:
        """Kill redundant parts, and return when they have ended."""
        for name in names:
            with suppress(ProcessLookupError):
                self.kill(name)
            await self._processes[name].wait()

    async def _until_all_ready(self, parts: Sequence[Part], on_ready: Callable[[str], None]) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            await self.guard(self._all_ready(session, parts, on_ready))

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end. Raise PartError as soon as a part fails."""
        task = asyncio.create_task(work)
        await asyncio.wait((task, self._failed), return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._failed.result()
        return await task

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a part a signal; by default SIGKILL, as the kernel does when memory runs out.

        Raise ProcessLookupError if the part has ended.
        """
        _send(self._processes[name], number)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> list[Path]:
        """Return the logs of all parts."""
        return [self.log(name) for name in self._parts]

    async def stop(self) -> None:
        """Stop every part: first by SIGTERM, then by SIGKILL."""
        for watcher in self._watchers:
            watcher.cancel()
        alive = [process for process in self._processes.values() if process.returncode is None]
        for process in alive:
            with suppress(ProcessLookupError):
                _send(process, signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in alive]
        if waits:
            _, late = await asyncio.wait(waits, timeout=_STOP_S)
            for process in alive:
                if late:
                    with suppress(ProcessLookupError):
                        _send(process, signal.SIGKILL)
            await asyncio.gather(*waits)

    async def _start(self, part: Part) -> None:
        with self.log(part.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Parts end with this process, even when it is killed: this project's by the variable, on Linux all.
                env={**part.env, PARENT: str(os.getpid())},
                preexec_fn=_end_with_parent if _LIBC else None,
                # Outside of the terminal's process group, so that Ctrl-C reaches only this process.
                start_new_session=True,
            )
        self._parts[part.name], self._processes[part.name] = part, process
        self._watchers.append(asyncio.create_task(self._watch(part, process)))

    async def _watch(self, part: Part, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        status = await process.wait()
        if self._restart_s is not None and part.name in self._were_ready:
            self._on_loss(part.name)
            await asyncio.sleep(self._pause_s(part.name, loop.time() - began_s))
            await self._start(part)
        elif part.redundant and status < 0:
            self._on_loss(part.name)
        elif not self._failed.done():
            self._failed.set_exception(
                PartError(f"{part.name} ended with status {status}{self._last_log_line(part.name)}")
            )

    def _pause_s(self, name: str, lived_s: float) -> float:
        """Return the time until a lost part starts again: longer each time, for a part that ends at once."""
        first_s = self._restart_s or 0.0
        before_s = self._paused_s.get(name, 0.0) if lived_s < _SHORT_LIFE_S else 0.0
        self._paused_s[name] = min(max(first_s, 2 * before_s), _LONGEST_PAUSE_S)
        return self._paused_s[name]

    def _last_log_line(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]} (whole log: {self.log(name)})" if lines else ""

    async def _all_ready(
        self, session: aiohttp.ClientSession, parts: Sequence[Part], on_ready: Callable[[str], None]
    ) -> None:
        await asyncio.gather(*(self._until_ready(session, part, on_ready) for part in parts))

    async def _until_ready(self, session: aiohttp.ClientSession, part: Part, on_ready: Callable[[str], None]) -> None:
        try:
            async with asyncio.timeout(part.ready_s):
                while not await _answers(session, part.ready_url):  # noqa: ASYNC110 (another process sets no event)
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise PartError(
                f"{part.name} is not ready after {part.ready_s:g} s{self._last_log_line(part.name)}"
            ) from error
        self._were_ready.add(part.name)
        on_ready(part.name)


def _end_with_parent() -> None:
    """Let the kernel end this child when its parent ends. A program of others, such as Envoy, watches no parent."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal. The process's own method would ask for its exit status, and take it from asyncio, which waits."""
    if process.returncode is not None:
        raise ProcessLookupError
    os.kill(process.pid, number)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
