"""A plot of the demo: each request's TTFT over time, coloured by policy, and the moment of the first model."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from lab.loop.policies import WARM_UP
from lab.loop.story import Story

COLOURS = {
    WARM_UP: "#9aa5b1",
    "round-robin": "#d1495b",
    "default": "#edae49",
    "slo": "#00798c",
    "slo-shedding": "#4cc9f0",
    "random": "#8f2d56",
    "p2c": "#7a5195",
    "least-requests": "#5f7f3b",
    "tuned": "#c77dff",
    "closed-formula": "#8c564b",
    "llmd-default": "#f28e2b",
    "reference": "#2f4b7c",
    "llmd-predicted": "#b07aa1",
}


def draw(story: Story, path: Path) -> None:
    """Write the plot as PNG or SVG, by the path's suffix."""
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for result in story.phases:
        known = [outcome for outcome in result.outcomes if outcome.ttft_ms is not None]
        times = [result.started_s + outcome.sent_s for outcome in known]
        colour = COLOURS[result.phase.name]
        met = [outcome.met for outcome in known]
        for wanted, marker, size in ((True, "o", 14), (False, "x", 26)):
            chosen = [index for index, value in enumerate(met) if value is wanted]
            axes.scatter(
                [times[i] for i in chosen],
                [known[i].ttft_ms for i in chosen],
                s=size,
                marker=marker,
                color=colour,
                linewidths=1,
                label=result.phase.name if wanted else None,
            )
        share = f"{sum(met) / len(met):.0%} met their SLO" if met else ""
        axes.annotate(share, (result.started_s, 1.02), xycoords=("data", "axes fraction"), color=colour, fontsize=9)
    if story.first_model_s is not None:
        axes.axvline(story.first_model_s, color="black", linestyle="--", linewidth=1, label="first model")
    axes.set(xlabel="time, s", ylabel="time to first token, ms", yscale="log")
    axes.plot([], [], "kx", label="missed an objective")
    figure.legend(loc="outside lower center", fontsize=8, ncols=6)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)
