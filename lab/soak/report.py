"""The table of a soak, for the terminal and for a page."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from lab import markdown as tables
from lab.soak.figures import SoakRun, p99_thirds_ms, thirds

_HEAD: Final = (
    "front, workers",
    "lost of all",
    "aborted",
    "in flight",
    "p99 ms",
    "MiB",
    "descriptors",
    "threads",
)


def table(runs: Sequence[SoakRun]) -> Table:
    """Return the table, with the first kinds of losses below it."""
    shown = Table(*_HEAD)
    for run in runs:
        shown.add_row(*_row(run))
    lost = sorted({loss for run in runs for loss in run.seen.lost})
    if lost:
        shown.caption = f"lost: {', '.join(lost[:5])}"
    return shown


def markdown(runs: Sequence[SoakRun], rate: float, seconds: float, plot: str) -> str:
    """Return the table and the link to the plot. `seconds` is the time of each run."""
    return (
        f"{tables.table(_HEAD, map(_row, runs))}\n\n"
        f"{rate:g} requests/s, {seconds / 60:g} minutes a row. Pairs are of the second and of the last third of the "
        f"time.\n\n![The picker's memory, p99 and descriptors over time]({plot})"
    )


def _row(run: SoakRun) -> tuple[str, ...]:
    levels = run.levels
    pairs = [p99_thirds_ms(run.seen), thirds(levels.rss_mib), thirds(levels.descriptors), thirds(levels.threads)]
    return (
        f"{run.front}, {run.workers}",
        f"{len(run.seen.lost)} of {run.seen.sent:,}",
        f"{run.seen.aborted:,}",
        f"{run.in_flight:g}",
        *(f"{middle:.0f}, {last:.0f}" for middle, last in pairs),
    )
