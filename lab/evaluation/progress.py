"""An evaluation's progress on stderr: workloads, runs, and the estimated time left."""

import time
from datetime import timedelta
from statistics import fmean
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

# Runs that a search is assumed to take until the first search has ended.
_RUNS_OF_A_SEARCH = 6
# Seconds over which the speed is averaged for the time left.
_RATE_OVER_S = 900
# Seconds between two lines where stderr is no terminal.
_LINE_EVERY_S = 60.0


class Meter:
    """Shows two progress bars, or prints a line per minute if stderr is no terminal.

    A search's number of runs is known only at its end. Until then, it counts as the mean of the ended searches. The bar
    counts only new runs; `known` is the number of results that exist already.
    """

    def __init__(
        self,
        workloads: int,
        searches: int,
        other_runs: int,
        known: int = 0,
        *,
        line_every_s: float = _LINE_EVERY_S,
    ) -> None:
        columns = (
            TextColumn("{task.description:12}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        self._console = Console(stderr=True)
        self._progress = Progress(*columns, console=self._console, speed_estimate_period=_RATE_OVER_S, expand=True)
        self._line_every_s, self._printed_s = line_every_s, time.monotonic()
        self._searches, self._other_runs = searches, other_runs
        self._ended: list[int] = []
        self._reused, self._known = 0, known
        self._workloads = self._progress.add_task("workloads", total=workloads, now="")
        self._running = self._progress.add_task("runs", total=None, now="")
        self._runs = self._progress.tasks[-1]
        self._set_total()

    def __enter__(self) -> "Meter":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def finished(self, workload: str) -> None:
        """Note that all runs of a workload have ended."""
        self._progress.update(self._workloads, advance=1, now=workload)

    def ran(self, what: str) -> None:
        self._progress.update(self._running, advance=1, now=what)
        self._set_total()
        if not self._console.is_terminal and time.monotonic() - self._printed_s >= self._line_every_s:
            self._printed_s = time.monotonic()
            self._console.print(self._line(what), highlight=False, soft_wrap=True)

    def reused(self) -> None:
        """Note that a run's result existed already."""
        self._reused += 1
        self._set_total()

    def searched(self, runs: int) -> None:
        """Note that a search ended after `runs` new or reused results."""
        self._ended.append(runs)
        self._set_total()

    def _line(self, what: str) -> str:
        left_s = self._runs.time_remaining
        left = "" if left_s is None else f", {timedelta(seconds=round(left_s))} left"
        return f"{self._runs.completed:.0f} of {self._runs.total:.0f} runs{left}: {what}"

    def _set_total(self) -> None:
        # update() would reset the speed estimate.
        self._runs.total = self._total()

    def _total(self) -> float:
        """Return the estimated number of new runs in the whole evaluation."""
        mean = fmean(self._ended) if self._ended else _RUNS_OF_A_SEARCH
        wanted = sum(self._ended) + (self._searches - len(self._ended)) * round(mean) + self._other_runs
        return max(wanted - max(self._known, self._reused), self._runs.completed)
