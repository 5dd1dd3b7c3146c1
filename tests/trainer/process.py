"""A trainer in a process of its own, with its log."""

import ctypes
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from headroom.processes.ports import free_port
from tests.live import PATIENCE_S, call, until

FITTERS_STAGES = ("fit", "export")
_STAGE = re.compile(r"stage: (\w+)")
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


class TrainerProcess:
    """A trainer process. `stage`: the last stage that it logged; `stages`: the count of each; `log`: all its output.

    `on_stage` is called in another thread with each stage that it logs.
    """

    def __init__(
        self, folder: Path, *flags: str, drop_capabilities: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.stage = "ingest"
        self.stages = Counter[str]()
        self.log = ""
        self.is_killed = False
        self.on_stage: Callable[[str], None] = lambda stage: None
        command = [sys.executable, "-m", "trainer", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--model-store", str(folder / "store"), "--sample-journal", str(folder / "journal")]
        command += ["--log-level", "debug", *flags]
        given = environment or {"LATENCY_RETRAINING_INTERVAL_SEC": "0.05"}
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | given,
            preexec_fn=_drop_root_capabilities if drop_capabilities else None,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_alive(self) -> None:
        until(self._alive)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send_kill(self) -> None:
        """Kill it and return at once."""
        self.is_killed = True
        self._process.kill()

    def kill(self) -> None:
        """Kill it and return when nothing more can come of it, neither files nor lines."""
        self.send_kill()
        self._process.wait()
        # The fitter holds a copy of the pipe. It ends by itself once it notices, and only then does the reader end.
        self._reader.join(timeout=PATIENCE_S)
        if self._process.stderr:
            self._process.stderr.close()

    def _alive(self) -> bool:
        try:
            return call(f"{self.url}/healthz")[0] == 200
        except OSError:
            return False

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self.log += line
            match = _STAGE.search(line)
            # The fitter goes on for a while when the trainer is gone.
            if match and not (self.is_killed and match[1] in FITTERS_STAGES):
                self.stage = match[1]
                self.stages[self.stage] += 1
                self.on_stage(self.stage)


@contextmanager
def started(
    folder: Path, *flags: str, drop_capabilities: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[TrainerProcess]:
    trainer = TrainerProcess(folder, *flags, drop_capabilities=drop_capabilities, environment=environment)
    try:
        trainer.wait_until_alive()
        yield trainer
    finally:
        trainer.kill()


def _drop_root_capabilities() -> None:
    """Make file permissions apply to root as well."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "can't drop a capability")
