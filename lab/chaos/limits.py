"""Processes at the limit of what they may have: descriptors and memory."""

import os
import resource
from collections.abc import Callable, Sequence
from itertools import count

import psutil

_NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def exhaust_descriptors(pids: Sequence[int]) -> Callable[[], None]:
    """Let processes open no further descriptor. Return what lifts the limit."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    for pid, (_, hard) in before.items():
        used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        lowest_free = next(number for number in count() if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))

    def lift() -> None:
        for pid, limit in before.items():
            if psutil.pid_exists(pid):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)

    return lift


def exhaust_memory(pids: Sequence[int]) -> Callable[[], None]:
    """Let processes map no further memory. Return what lifts the limit."""
    for pid in pids:
        mapped = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (mapped, resource.RLIM_INFINITY))

    def lift() -> None:
        for pid in pids:
            if psutil.pid_exists(pid):
                resource.prlimit(pid, resource.RLIMIT_AS, _NO_LIMIT)

    return lift


def children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
