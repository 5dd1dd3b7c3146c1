"""Start containers' processes, and processes within containers."""

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
    """A running process. `outer` waits for it from outside its namespaces; `pid` is its id on the machine."""

    outer: asyncio.subprocess.Process
    pid: int

    async def wait(self) -> int:
        """Return the exit code, or 128 plus the signal's number."""
        code = await self.outer.wait()
        return code if code >= 0 else 128 - code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended. SIGKILL ends all processes of its namespace."""
        if self.outer.returncode is None:
            self.outer.send_signal(number)


async def start(spec: ProcessSpec, stdin: int = DEVNULL, stdout: int = DEVNULL, stderr: int = DEVNULL) -> Process:
    """Start a process and return when it runs. Raise StartError if it doesn't start."""
    spec_file = os.memfd_create("spec")
    os.write(spec_file, spec.encode())
    os.lseek(spec_file, 0, os.SEEK_SET)
    reader, writer = os.pipe()
    passed = (spec_file, writer, *(() if spec.join_pid else (spec.network,)))
    try:
        outer = await asyncio.create_subprocess_exec(
            *_LAUNCH, str(spec_file), str(writer), cwd=ROOT, env={}, pass_fds=passed, start_new_session=True,
            stdin=stdin, stdout=stdout, stderr=stderr,
        )  # fmt: skip
    finally:
        os.close(writer)
        os.close(spec_file)
    with os.fdopen(reader, "rb") as status:
        failure = await asyncio.to_thread(status.read)
    if failure:
        await outer.wait()
        raise StartError(failure.decode(errors="replace"))
    return Process(outer, _child(outer.pid))


async def finish(process: Process, timeout_s: float) -> tuple[int, bytes]:
    """Wait for the end; return the exit code and the output to a piped stdout.

    Raise TimeoutError after `timeout_s`. In every case no process is left.
    """
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
