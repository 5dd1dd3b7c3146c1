"""A picker that is measured: where it listens, and what its processes spend."""

import re
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Target:
    """`processes` are counted with their children; without any, the metrics page tells what its own process spent."""

    name: str
    address: str
    processes: Sequence[psutil.Process] = ()
    metrics_url: str = ""

    @property
    def cpu_s(self) -> float:
        """CPU time spent so far."""
        if not self.processes:
            return self._metric("process_cpu_seconds_total")
        return sum(times.user + times.system for times in (process.cpu_times() for process in self._family()))

    @property
    def rss_mib(self) -> float:
        """Resident memory."""
        if not self.processes:
            return self._metric("process_resident_memory_bytes") / 2**20
        return sum(process.memory_info().rss for process in self._family()) / 2**20

    def idle_cores(self, seconds: float) -> float:
        """What it spends while nobody asks."""
        before_s, began_s = self.cpu_s, time.perf_counter()
        time.sleep(seconds)
        return (self.cpu_s - before_s) / (time.perf_counter() - began_s)

    def _family(self) -> list[psutil.Process]:
        return [one for process in self.processes for one in (process, *process.children(recursive=True))]

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:  # noqa: S310
            found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
        if not found:
            raise RuntimeError(f"{self.metrics_url} has no {name}")
        return float(found[1])
