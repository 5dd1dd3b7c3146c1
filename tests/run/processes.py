"""Adopt and kill the descendants of this process."""

import contextlib
import ctypes
import os
import sys
import time

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_S = 10.0


def adopt_orphans() -> None:
    """On Linux, make this process the parent of each descendant whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> list[str]:
    """Kill all descendants of this process until none is left; return their command lines."""
    killed: dict[int, str] = {}
    deadline = time.monotonic() + _LONGEST_S
    while (running := _running()) and time.monotonic() < deadline:
        for process in running:
            with contextlib.suppress(psutil.Error):
                killed[process.pid] = killed.get(process.pid) or " ".join(process.cmdline())[:100] or process.name()
                process.kill()
        _reap()
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
