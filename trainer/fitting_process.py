"""A child process that runs the fitter, so that a fit never delays the server's answers."""

import logging
import subprocess
import sys
import threading
from contextlib import suppress
from typing import BinaryIO, cast

import msgspec

from trainer.exceptions import FitError
from trainer.job import LENGTH, Answer, FittedModel, Job, encode_job

logger = logging.getLogger("headroom.trainer")

_decoder = msgspec.msgpack.Decoder(Answer)


class FittingProcess:
    """The fitter's child process. It starts with the first job, and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start the process, so that it imports its libraries before the first job."""
        with self._lock:
            self._running_process()

    def learn(self, job: Job) -> list[FittedModel]:
        """Fit a model for each target of the job. Blocking; raise FitError when the fit fails."""
        with self._lock:
            process = self._running_process()
            try:
                answer = _ask(process, encode_job(job))
            except (OSError, EOFError) as error:
                self._process = None
                raise FitError(_describe_death(process)) from error
        if answer.error:
            raise FitError(answer.error)
        return answer.models

    def stop(self) -> None:
        """End the process for good. A fit that is running fails."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            with self._lock:
                _reap(self._process)

    def _running_process(self) -> "subprocess.Popen[bytes]":
        if self._stopped:
            raise FitError("the trainer is ending")
        if self._process is None:
            level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.fitter", level],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A session of its own: the terminal's signals reach only the server, which then ends this process.
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


def _describe_death(process: "subprocess.Popen[bytes]") -> str:
    """End the process and return an error text with its exit status; the usual reason is a lack of memory."""
    process.kill()
    _reap(process)
    how = f"by signal {-process.returncode}" if process.returncode < 0 else f"with status {process.returncode}"
    return f"the fitting process ended {how}; is there enough memory? The next pass restarts it"


def _reap(process: "subprocess.Popen[bytes] | None") -> None:
    if process is None:
        return
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # closing flushes buffered bytes, which fails once the process is gone
                pipe.close()
