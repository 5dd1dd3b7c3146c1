"""Starts containers' processes, and processes within containers."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from dataclasses import dataclass
from pathlib import Path

from tests.node.images import ROOT
from tests.node.process_spec import ProcessSpec

_LAUNCH = (sys.executable, "-S", "-E", "-m", "tests.node.launch")


class StartError(Exception):
    """The process could not be started; the text says why."""


@dataclass(frozen=True)
class Process:
    """`outer` waits for the process, outside of its namespaces; `pid` is the process's own, as the machine has it."""

    outer: asyncio.subprocess.Process
    pid: int

    async def wait(self) -> int:
        """The exit code; 128 and the signal's number after one."""
        code = await self.outer.wait()
        return code if code >= 0 else 128 - code

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended. SIGKILL ends all of its namespace."""
        if self.outer.returncode is None:
            self.outer.send_signal(number)


async def start(spec: ProcessSpec, stdin: int = DEVNULL, stdout: int = DEVNULL, stderr: int = DEVNULL) -> Process:
    """Returns when the process runs. StartError when it doesn't."""
    told = os.memfd_create("spec")
    os.write(told, spec.encode())
    os.lseek(told, 0, os.SEEK_SET)
    reader, writer = os.pipe()
    passed = (told, writer, *(() if spec.beside else (spec.network,)))
    try:
        outer = await asyncio.create_subprocess_exec(
            *_LAUNCH, str(told), str(writer), cwd=ROOT, env={}, pass_fds=passed, start_new_session=True,
            stdin=stdin, stdout=stdout, stderr=stderr,
        )  # fmt: skip
    finally:
        os.close(writer)
        os.close(told)
    with os.fdopen(reader, "rb") as status:
        failure = await asyncio.to_thread(status.read)
    if failure:
        await outer.wait()
        raise StartError(failure.decode(errors="replace"))
    return Process(outer, _child(outer.pid))


async def finish(process: Process, timeout_s: float) -> tuple[int, bytes]:
    """Exit code and what it wrote to a piped stdout. TimeoutError after that time; the process never goes on."""
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.outer.communicate()
            return await process.wait(), output or b""
    finally:
        process.send(signal.SIGKILL)


def _child(pid: int) -> int:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(found[0]) if found else 0
