"""The evaluation's plots: attainment by rate for each workload, and prediction errors over time."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from lab.evaluation.plan import INFORMED, ORACLE, OURS, SHEDDING_ORACLE
from lab.evaluation.replay.misses import LEAST_ATTAINMENT
from lab.evaluation.replay.point import PointResult
from lab.evaluation.report.recovery import COVERAGE, TPOT_MDAPE, TTFT_MDAPE
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.statistics import Interval, mean_interval

_COLOURS = {
    "random": "#c9ced6",
    "round-robin": "#9aa5b1",
    "least-requests": "#c08552",
    "least-tokens": "#8d6a9f",
    "p2c": "#b5838d",
    "default": "#edae49",
    "tuned": "#d1495b",
    "closed-formula": "#66a182",
    "llmd-default": "#f28e2b",
    "reference": "#3d5a80",
    "llmd-predicted": "#7b2cbf",
    "slo": "#00798c",
    "slo-shedding": "#4cc9f0",
    "informed": "#5c6670",
    "oracle": "black",
    "oracle-shedding": "#e76f9b",
}
_INTERVALS = 24  # between the points of a line


def draw_attainment(result: WorkloadResult, file: Path) -> None:
    """Draw one line per policy with its interval over seeds as a band, and the common load."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for policy in result.policies:
        rates, intervals = curve(result, policy)
        bold = policy == OURS
        style = "--" if policy in (INFORMED, ORACLE, SHEDDING_ORACLE) else "-"
        means = [100 * one.mean for one in intervals]
        axes.plot(rates, means, style, color=_COLOURS[policy], linewidth=2.4 if bold else 1.2, label=policy)
        lows, highs = ([100 * one.ends[end] for one in intervals] for end in (0, 1))
        axes.fill_between(rates, lows, highs, color=_COLOURS[policy], alpha=0.12)
    for share in (90, 99):
        axes.axhline(share, color="black", linestyle=":", linewidth=0.8)
    axes.axvline(result.rates[1.0], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="requests/s", ylabel="requests that met their objectives, %", xscale="log", title=result.workload)
    axes.set_ylim(100 * LEAST_ATTAINMENT, 101)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def curve(result: WorkloadResult, policy: str) -> tuple[list[float], list[Interval]]:
    """Return rates, and the attainment over seeds at each of them.

    Each seed's attainment is interpolated between its runs. Nothing is extrapolated.
    """
    by_seed = [_runs(result, policy, seed) for seed in result.seeds]
    low = max(runs[0][0] for runs in by_seed)
    high = min(runs[-1][0] for runs in by_seed)
    if low >= high:
        return [], []
    rates = [low * (high / low) ** (place / _INTERVALS) for place in range(_INTERVALS + 1)]
    rates[-1] = high
    return rates, [mean_interval([_interpolate(runs, rate) for runs in by_seed]) for rate in rates]


def draw_errors(result: WorkloadResult, changed_s: float | None, file: Path) -> None:
    """Draw errors and coverage of our predictions over time at the common load: a line per seed, and the bounds."""
    figure, places = plt.subplots(3, 1, figsize=(9, 7), layout="constrained", sharex=True)
    names = ("TTFT error, %", "TPOT error, %", "coverage, %")
    bounds = ((TTFT_MDAPE,), (TPOT_MDAPE,), COVERAGE)
    for number, (axes, name, wanted) in enumerate(zip(places, names, bounds, strict=True), 1):
        for point in result.at_load(OURS):
            bins = [[float(value) for value in one] for one in point.errors_over_time]
            axes.plot(
                [one[0] for one in bins], [one[number] for one in bins], color=_COLOURS[OURS], alpha=0.6, linewidth=1
            )
        for bound in wanted:
            axes.axhline(bound, color="black", linestyle=":", linewidth=0.8)
        if changed_s is not None:
            axes.axvline(changed_s, color=_COLOURS["tuned"], linestyle="--", linewidth=1)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    places[0].set_title(f"{result.workload}: predictions of {OURS} at {result.rates[1.0]:.3g} requests/s")
    places[-1].set_xlabel("virtual time, s")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def has_errors(result: WorkloadResult) -> bool:
    return OURS in result.policies and any(point.errors_over_time for point in result.at_load(OURS))


def _runs(result: WorkloadResult, policy: str, seed: int) -> list[tuple[float, float]]:
    """Return rates and attainments, in order of the rate. Attainments below that of cut runs count as equal."""
    wanted: Sequence[PointResult] = [p for p in result.points if p.policy == policy and p.seed == seed]
    return sorted((point.requests_per_s, max(point.attainment, LEAST_ATTAINMENT)) for point in wanted)


def _interpolate(runs: Sequence[tuple[float, float]], rate: float) -> float:
    """Return the attainment at a rate, interpolated linearly in the logarithm of the rate."""
    for (below, low), (above, high) in pairwise(runs):
        if below <= rate <= above:
            return low + (high - low) * math.log(rate / below) / math.log(above / below)
    return runs[-1][1] if rate > runs[-1][0] else runs[0][1]
