"""Runs style, types and tests beside one another: `python -m tests.run [--quick] [arguments of pytest]`.

The control plane that some tests need is built at the same time, where it isn't there yet. Each part's verdict is told
when the part ends, and again at the end. SIGTERM and Ctrl-C end everything that was started.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from tests.kubernetes.binaries import is_built
from tests.run.processes import adopt_orphans, kill_descendants

# pytest ends within 10 s of a signal (see tests.run.ending).
_GRACE_S = 20.0
_POLL_S = 0.1
# What runs beside the tests leaves them the processors.
_NICE = 5
_SLOWEST = 20
# Options of pytest or pytest-xdist with which a run is one process.
_ALONE = ("-n", "--numprocesses", "--pdb", "--trace", "--dist", "no:xdist", "--collect-only", "--co")


@dataclass
class Part:
    """`output` has what it wrote; None where it writes to this process's own output."""

    name: str
    command: Sequence[str]
    output: IO[bytes] | None
    process: subprocess.Popen[bytes] = field(init=False)
    started_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def start(self) -> None:
        aside = self.output is not None
        self.process = subprocess.Popen(
            self.command,
            stdout=self.output,
            stderr=subprocess.STDOUT if aside else None,
            preexec_fn=_yield_processor if aside else None,
        )

    @property
    def verdict(self) -> str:
        return "passed" if self.process.returncode == 0 else f"FAILED ({self.process.returncode})"


def main(arguments: Sequence[str]) -> int:
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with contextlib.ExitStack() as files:
        parts = _parts(arguments, files)
        try:
            for part in parts:
                part.start()
            _follow(parts)
        except KeyboardInterrupt as interrupt:
            _end(parts)
            _tell(f"Ended by {interrupt}.")
            return 128 + signal.Signals[str(interrupt)]
        finally:
            kill_descendants()
        return _conclude(parts)


def _parts(arguments: Sequence[str], files: contextlib.ExitStack) -> list[Part]:
    def aside(name: str, *command: str) -> Part:
        return Part(name, command, files.enter_context(tempfile.TemporaryFile()))

    parts = [aside("style", "./scripts/lint"), aside("types", "./scripts/check")]
    if not is_built():
        parts.append(aside("control plane", sys.executable, "-m", "tests.kubernetes.binaries"))
    return [*parts, Part("tests", _pytest(arguments), None)]


def _pytest(arguments: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "pytest", f"--durations={_SLOWEST}"]
    if not any(word.startswith(alone) for word in arguments for alone in _ALONE):
        command += ["-n", str(_workers(arguments)), "--dist", "loadgroup", "--no-loadscope-reorder"]
    return [*command, *arguments]


def _workers(arguments: Sequence[str]) -> int:
    """One for each processor, and one more where tests wait for the processes that they start."""
    return len(os.sched_getaffinity(0)) + ("--quick" not in arguments)


def _follow(parts: Sequence[Part]) -> None:
    """Return when all have ended, and tell of each that does."""
    left = list(parts)
    while left:
        for part in list(left):
            if part.process.poll() is not None:
                left.remove(part)
                part.seconds = time.monotonic() - part.started_at
                _tell(f"{part.name}: {part.verdict} in {part.seconds:.0f} s")
        time.sleep(_POLL_S)


def _end(parts: Sequence[Part]) -> None:
    """Let each part end by itself for a while."""
    running = [part.process for part in parts if hasattr(part, "process") and part.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))


def _conclude(parts: Sequence[Part]) -> int:
    """Tell what failed, each part's verdict and the minutes in all; return the exit code."""
    failed = [part for part in parts if part.process.returncode]
    for part in failed:
        if part.output is not None:
            part.output.seek(0)
            _tell(f"\n{part.name} said:\n{part.output.read().decode(errors='replace').rstrip()}")
    minutes = max(part.seconds for part in parts) / 60
    verdicts = ", ".join(f"{part.name} {part.verdict} in {part.seconds:.0f} s" for part in parts)
    _tell(f"\n{verdicts}.\n{minutes:.1f} minutes in all.")
    return failed[-1].process.returncode if failed else 0


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _yield_processor() -> None:
    os.nice(_NICE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
