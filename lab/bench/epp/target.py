"""A measured picker: its address, and the resources that its processes use."""

import platform
import re
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class MeasuredPicker:
    """A measured picker.

    `processes` are measured with their children. Without them, the picker's metrics page gives its CPU and memory.
    """

    name: str
    address: str
    processes: Sequence[psutil.Process] = ()
    metrics_url: str = ""

    @property
    def cpu_s(self) -> float:
        """The CPU time in s so far."""
        if not self.processes:
            return self.metric("process_cpu_seconds_total")
        return sum(map(_cpu_s, self._family()))

    @property
    def rss_mib(self) -> float:
        """The resident memory."""
        if not self.processes:
            return self.metric("process_resident_memory_bytes") / 2**20
        return float(sum(one.memory_info().rss for one in self._family())) / 2**20

    def idle_cores(self, seconds: float) -> float:
        """Measure the cores that the picker uses without requests."""
        before_s, began_s = self.cpu_s, time.perf_counter()
        time.sleep(seconds)
        return (self.cpu_s - before_s) / (time.perf_counter() - began_s)

    def metric(self, series: str) -> float:
        """Return the sum of all values on the metrics page whose series begins with `series`; RuntimeError if none."""
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=10) as response:  # noqa: S310
                page = response.read().decode()
        except (OSError, ValueError) as error:
            raise RuntimeError(f"can't read {self.metrics_url or 'a metrics page without a URL'}") from error
        found = re.findall(rf"^{re.escape(series)}\S* (\S+)$", page, re.MULTILINE)
        if not found:
            raise RuntimeError(f"{self.metrics_url} has no {series}")
        return float(sum(map(float, found)))

    def _family(self) -> list[psutil.Process]:
        return [one for process in self.processes for one in (process, *process.children(recursive=True))]


def _cpu_s(process: psutil.Process) -> float:
    """Return a process's CPU time in s.

    /proc has ticks of 10 ms, which are too coarse for short measurements. On Linux, the process's CPU clock has
    nanoseconds. The clock's number is computed as in clock_getcpuclockid(3).
    """
    if platform.system() == "Linux":
        return time.clock_gettime((~process.pid << 3) | 2)
    times = process.cpu_times()
    return float(times.user + times.system)
