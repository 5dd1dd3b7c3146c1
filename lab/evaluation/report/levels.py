"""A CSV table with all measurements of each policy at each load."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.evaluation.replay.point import PointResult
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.statistics import mean_interval

LEVELS = "levels.csv"
_COLUMNS = (
    "attainment",
    "goodput_rps",
    "throughput_tokens_per_s",
    "fairness",
    "cached_share",
    "preemptions",
    "shed",
    "decision_us",
    "ttft_mdape",
    "tpot_mdape",
    "coverage_q90",
)
_DIGITS = 5


def write_levels(file: Path, results: Sequence[WorkloadResult]) -> None:
    """Write a line for each workload, load and policy.

    Each number has three columns: the mean over seeds, and the ends of its interval. `load` is a multiple of the common
    load. A field is empty if there is no such number.
    """
    lines = [
        (result.workload, f"{load:g}", _short(rate), policy, [_numbers(p) for p in result.at_load(policy, load)])
        for result in results
        for load, rate in result.rates.items()
        for policy in result.policies
    ]
    columns = list(dict.fromkeys(name for *_, seeds in lines for numbers in seeds for name in numbers))
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        ends = [f"{name}{end}" for name in columns for end in ("", "_low", "_high")]
        writer.writerow(["workload", "load", "requests_per_s", "policy", *ends])
        for *keys, seeds in lines:
            writer.writerow([*keys, *(text for name in columns for text in _ends(name, seeds))])


def _numbers(point: PointResult) -> Mapping[str, float]:
    """Return a run's numbers by column, without those that are None."""
    numbers = {name: getattr(point, name) for name in _COLUMNS}
    numbers |= {f"attainment_{name}": share for name, share in point.attainment_by_class.items()}
    for latency in ("ttft", "tpot", "e2e"):
        numbers |= {f"{latency}_{p}_ms": value for p, value in getattr(point, f"{latency}_ms").items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _ends(name: str, seeds: Sequence[Mapping[str, float]]) -> list[str]:
    values = [numbers[name] for numbers in seeds if name in numbers]
    if not values:
        return ["", "", ""]
    found = mean_interval(values)
    return ["" if one is None else _short(one) for one in (found.mean, found.low, found.high)]


def _short(value: float) -> str:
    return f"{value:.{_DIGITS}g}"
