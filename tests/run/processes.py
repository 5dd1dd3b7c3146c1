"""Adopt and kill the descendants of this process."""

import contextlib
import ctypes
import os
import sys
import time

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_S = 10.0
# Python keeps this process until its parent ends.
_KEPT = "multiprocessing.resource_tracker"


def adopt_orphans() -> None:
    """On Linux, make this process the parent of each descendant whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> list[str]:
    """Kill all descendants of this process until none is left. Return the command lines of those still alive.

    A process whose memory is gone has no command line any more: it ends by itself once its own children are reaped.
    """
    killed: dict[int, str] = {}
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        _reap()
        if not (running := _running()):
            break
        for process in running:
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if line and _KEPT not in line:
                    killed.setdefault(process.pid, line[:100])
                process.kill()
        time.sleep(0.01)
    return list(killed.values())


def _running() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if not _is_zombie(process)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _reap() -> None:
    """Take the exit status of every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
