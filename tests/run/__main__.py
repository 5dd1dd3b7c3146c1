"""Run style, types and tests in parallel: `python -m tests.run [--quick] [arguments of pytest]`.

`--engines` runs only the tests with real vLLM, and installs vLLM if necessary.

The control plane that some tests need is built at the same time, unless it is built already. Each part's verdict is
printed when the part ends, and again at the end. SIGTERM and Ctrl-C end all started processes.
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

from headroom.processes.exceptions import PartError
from lab.engines import environment
from tests.kubernetes.binaries import is_built
from tests.run import engines
from tests.run.processes import adopt_orphans, kill_descendants

# pytest ends within 10 s of a signal (see tests.run.ending).
_GRACE_S = 20.0
_POLL_S = 0.1
# Niceness of the other parts, so that they leave the processors to the tests.
_NICE = 5
_SLOWEST = 20
# Options of pytest or pytest-xdist that need a run in one process.
# The tests with vLLM share their servers.
_ALONE = ("-n", "--numprocesses", "--pdb", "--trace", "--dist", "no:xdist", "--collect-only", "--co", engines.FLAG)


@dataclass
class Part:
    """One command of the run. `output` collects its output; with None it writes to this process's output."""

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
    # A run starts hundreds of processes. Each would compile all modules again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    if engines.IF_INSTALLED in arguments and not environment.is_built():
        _tell(engines.LEFT_OUT)
        return 0
    with contextlib.ExitStack() as files:
        try:
            parts = _with_engines(arguments) if engines.is_asked(arguments) else _parts(arguments, files)
        except PartError as error:
            _tell(str(error))
            return 1
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


def _with_engines(arguments: Sequence[str]) -> list[Part]:
    environment.build()
    return [Part("tests with vLLM", _pytest(engines.only_with_engines(arguments)), None)]


def _pytest(arguments: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "pytest", f"--durations={_SLOWEST}"]
    if not any(word.startswith(alone) for word in arguments for alone in _ALONE):
        command += ["-n", str(_workers(arguments)), "--dist", "loadgroup", "--no-loadscope-reorder"]
    return [*command, *arguments]


def _workers(arguments: Sequence[str]) -> int:
    """Return one worker per processor, plus one in a full run, whose tests often wait for processes they start."""
    return len(os.sched_getaffinity(0)) + ("--quick" not in arguments)


def _follow(parts: Sequence[Part]) -> None:
    """Wait until all parts have ended. Print each part's verdict when it ends."""
    left = list(parts)
    while left:
        for part in list(left):
            if part.process.poll() is not None:
                left.remove(part)
                part.seconds = time.monotonic() - part.started_at
                _tell(f"{part.name}: {part.verdict} in {part.seconds:.0f} s")
        time.sleep(_POLL_S)


def _end(parts: Sequence[Part]) -> None:
    """Send SIGTERM to all running parts and wait for them, up to `_GRACE_S` in all."""
    running = [part.process for part in parts if hasattr(part, "process") and part.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))


def _conclude(parts: Sequence[Part]) -> int:
    """Print the failures' output, each part's verdict and the total time; return the exit code."""
    failed = [part for part in parts if part.process.returncode]
    for part in failed:
        if part.output is not None:
            part.output.seek(0)
            _tell(f"\nOutput of {part.name}:\n{part.output.read().decode(errors='replace').rstrip()}")
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
