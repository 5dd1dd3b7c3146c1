"""A plot of a soak: the picker's memory, the clients' p99, and the picker's descriptors over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from lab.soak.figures import SoakRun, p99_over_time

_COLOURS: Final = ("#00798c", "#4cc9f0", "#d1495b", "#edae49")
# Points of the p99's line.
_SPANS: Final = 60


def draw(runs: Sequence[SoakRun], file: Path) -> None:
    """Write the plot as PNG or SVG, by the file's suffix, with a line for each run."""
    figure, places = plt.subplots(3, 1, figsize=(9, 7), layout="constrained", sharex=True)
    for number, run in enumerate(runs):
        colour, levels = _COLOURS[number % len(_COLOURS)], run.levels
        p99s = p99_over_time(run.seen, _SPANS)
        lines = ((levels.at_s, levels.rss_mib), tuple(zip(*p99s, strict=True)), (levels.at_s, levels.descriptors))
        for axes, (times_s, values) in zip(places, lines, strict=True):
            label = f"{run.front}, {run.workers}" if axes is places[0] else None
            axes.plot([time_s / 60 for time_s in times_s], values, color=colour, linewidth=1.2, label=label)
    for axes, name in zip(places, ("memory, MiB", "p99, ms", "descriptors"), strict=True):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    places[-1].set_xlabel("time, minutes")
    figure.legend(loc="outside upper center", fontsize=8, ncols=len(runs), title="gRPC front, processes")
    figure.savefig(file, dpi=110)
    plt.close(figure)
