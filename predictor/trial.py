"""The trial of a new model: another process loads and runs it first, with limits of memory and time.

A model may be made to exhaust memory, to run for ever or to crash onnxruntime. The process that serves loads only
models that have passed. `predictor/trial_process.py` is the other side.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from predictor.exceptions import ModelError
from predictor.loading import Limits, Source
from predictor.trial_process import Trial, Verdict

# Seconds of CPU for a trial. A model of the trainer takes some milliseconds.
_CPU_S: Final = 10
# Seconds for the whole trial. On a busy machine it takes longer than its CPU time.
_DEADLINE_S: Final = 30.0
# Seconds for which a model that failed is not tried again. It fails again, and costs CPU each time.
_REFUSED_S: Final = 60.0
_MOST_REFUSED: Final = 100
# A model that takes long then does not delay another.
_AT_ONCE: Final = 2
_ROOT: Final = str(Path(__file__).parents[1])


class Trials:
    """Tries models in other processes, which stay for the next models. All methods are thread-safe."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._idle: list[_TrialProcess] = []
        self._refused: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()

    def check(self, source: Source, limits: Limits) -> None:
        """Raise ModelError if the model fails its trial."""
        identity = sha256(source.onnx).digest() + msgspec.json.encode((source.name, source.version, source.manifest))
        with self._lock:
            until_s, verdict = self._refused.get(identity, (0.0, Verdict()))
        if time.monotonic() >= until_s:
            with self._slots:
                verdict = self._run(source, limits)
            if verdict.reason:
                self._remember(identity, verdict)
        if verdict.reason:
            raise ModelError(source.name, source.version, verdict.reason, verdict.kind)

    def close(self) -> None:
        """End the processes that wait for a trial."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _remember(self, identity: bytes, verdict: Verdict) -> None:
        with self._lock:
            self._refused[identity] = time.monotonic() + _REFUSED_S, verdict
            while len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)

    def _run(self, source: Source, limits: Limits) -> Verdict:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        try:
            if process and not process.is_alive:
                # It was killed, perhaps because memory ran out.
                process.end()
                process = None
            process = process or _TrialProcess()
            verdict = process.ask(source, limits)
        except OSError as error:
            if process:
                process.end()
            raise ModelError(source.name, source.version, f"can't be tried: {error}", "trial") from error
        if process.is_alive:
            with self._lock:
                self._idle.append(process)
        return verdict


class _TrialProcess:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "predictor.trial_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)])},
            # A group of its own: its child can be killed with it, and Ctrl-C reaches neither.
            start_new_session=True,
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, source: Source, limits: Limits) -> Verdict:
        """Return the verdict; raise OSError if the process is gone."""
        trial = Trial(
            source.name, source.version, len(source.onnx), source.manifest, source.max_batch_size, limits.rows, _CPU_S
        )
        assert self._process.stdin  # noqa: S101 (it is a pipe)
        self._process.stdin.write(msgspec.json.encode(trial) + b"\n" + source.onnx)
        self._process.stdin.flush()
        answer = self._read_line()
        if answer is None:
            self.end()
            return Verdict(f"its trial did not end in {_DEADLINE_S:g} s")
        if not answer:
            self.end()
            raise BrokenPipeError("the process that tries models has ended")
        return msgspec.json.decode(answer, type=Verdict)

    def end(self) -> None:
        """Kill the process and its child."""
        if self.is_alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()
        self._process.wait()

    def _read_line(self) -> bytes | None:
        """Read a line within the deadline: None if it is late, empty if the process has ended."""
        assert self._process.stdout  # noqa: S101 (it is a pipe)
        descriptor, line, ends_at = self._process.stdout.fileno(), b"", time.monotonic() + _DEADLINE_S
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, ends_at - time.monotonic()))
            if not ready:
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                return b""
            line += part
        return line
