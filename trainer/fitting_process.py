"""The fitter in a process of its own, so that no fit holds up an answer."""

import logging
import subprocess
import sys
import threading
from contextlib import suppress
from typing import BinaryIO, cast

import msgspec

from trainer.exceptions import FitError
from trainer.job import LENGTH, Answer, Job, Learnt, encode_job

logger = logging.getLogger("headroom.trainer")

_decoder = msgspec.msgpack.Decoder(Answer)


class FittingProcess:
    """Started when it is first asked, and anew when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Has it import its libraries before the first job comes."""
        with self._lock:
            self._started()

    def learn(self, job: Job) -> list[Learnt]:
        """A model for each target of the job. Blocking; FitError when there is none."""
        with self._lock:
            process = self._started()
            try:
                answer = _ask(process, encode_job(job))
            except (OSError, EOFError) as error:
                self._process = None
                raise FitError(_last_words(process)) from error
        if answer.error:
            raise FitError(answer.error)
        return answer.learnt

    def stop(self) -> None:
        """Ends the process for good, in the middle of a fit if need be, which then fails."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            with self._lock:
                _reap(self._process)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._stopped:
            raise FitError("the trainer is ending")
        if self._process is None:
            level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.fitter", level],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A session of its own: the signals of a terminal are for the server, which then ends this one.
                start_new_session=True,
            )
        return self._process


def _ask(process: "subprocess.Popen[bytes]", message: bytes) -> Answer:
    sink, source = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    sink.write(LENGTH.pack(len(message)))
    sink.write(message)
    sink.flush()
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return _decoder.decode(source.read(LENGTH.unpack(head)[0]))


def _last_words(process: "subprocess.Popen[bytes]") -> str:
    """Why the process is gone; it takes its memory with it, which is what most likely killed it."""
    process.kill()
    _reap(process)
    how = f"by signal {-process.returncode}" if process.returncode < 0 else f"with status {process.returncode}"
    return f"the fitting process ended {how}; is there enough memory? The next pass starts it anew"


def _reap(process: "subprocess.Popen[bytes] | None") -> None:
    if process is None:
        return
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written yet can't be, on closing
                pipe.close()
