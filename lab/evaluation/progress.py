"""How far an evaluation is, on stderr: what is prepared, what is run, and how long it may still take."""

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

_RUNS_OF_A_SEARCH = 6
_RATE_OVER_S = 900
_LINE_EVERY_S = 60.0


class Meter:
    """Two bars; a line a minute where stderr is no terminal.

    How many runs a search takes is known when it ends: those to come count as its mean. The runs of the bar are those
    that are made; `known` is how many results there are already.
    """

    def __init__(
        self,
        preparations: int,
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
        self._line_every_s, self._told_s = line_every_s, time.monotonic()
        self._searches, self._other_runs = searches, other_runs
        self._ended: list[int] = []
        self._had, self._known = 0, known
        self._preparing = self._progress.add_task("preparations", total=preparations, now="")
        self._running = self._progress.add_task("runs", total=None, now="")
        self._runs = self._progress.tasks[-1]
        self._set_total()

    def __enter__(self) -> "Meter":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def prepared(self, what: str) -> None:
        self._progress.update(self._preparing, advance=1, now=what)

    def ran(self, what: str) -> None:
        self._progress.update(self._running, advance=1, now=what)
        self._set_total()
        if not self._console.is_terminal and time.monotonic() - self._told_s >= self._line_every_s:
            self._told_s = time.monotonic()
            self._console.print(self._line(what), highlight=False, soft_wrap=True)

    def had(self) -> None:
        """A run needn't be made: there was its result."""
        self._had += 1
        self._set_total()

    def searched(self, runs: int) -> None:
        """A search ended, after so many runs that were made or had."""
        self._ended.append(runs)
        self._set_total()

    def _line(self, what: str) -> str:
        left_s = self._runs.time_remaining
        left = "" if left_s is None else f", {timedelta(seconds=round(left_s))} left"
        return f"{self._runs.completed:.0f} of {self._runs.total:.0f} runs{left}: {what}"

    def _set_total(self) -> None:
        # Not by update(), which would forget how fast it has been.
        self._runs.total = self._total()

    def _total(self) -> float:
        """How many will have been made."""
        mean = fmean(self._ended) if self._ended else _RUNS_OF_A_SEARCH
        wanted = sum(self._ended) + (self._searches - len(self._ended)) * round(mean) + self._other_runs
        return max(wanted - max(self._known, self._had), self._runs.completed)
