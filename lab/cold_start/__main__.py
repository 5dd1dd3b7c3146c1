"""`scripts/evaluate_cold_start.py`: how soon predictions are used and good, and what requests get meanwhile."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

from lab.bench.figures import write
from lab.cold_start.report import figures, page
from lab.cold_start.starts import POOLS, STARTS, StartResult, measure_all
from simulator.workloads import WORKLOADS

_POSITIVE = click.FloatRange(0, min_open=True)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    default=("azure-conversation", "heterogeneous"),
    type=click.Choice(list(WORKLOADS)),
    help="Workload to run; repeatable.",
)
@click.option(
    "--pool",
    "pools",
    multiple=True,
    default=tuple(POOLS),
    type=click.Choice(list(POOLS)),
    help="What the pool does at the start; repeatable.",
)
@click.option("--load", default=0.6, type=_POSITIVE, help="Load as a multiple of the workload's typical rate.")
@click.option("--seeds", default=5, type=click.IntRange(1), help="Number of seeds for requests.")
@click.option(
    "--jobs", default=os.cpu_count() or 1, show_default="the cores", type=click.IntRange(1), help="Number of processes."
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(
    workloads: Sequence[str], pools: Sequence[str], load: float, seeds: int, jobs: int, json_file: Path | None
) -> None:
    """Start runs in virtual time with no models, kept models, wrong ones, and models of a simulated twin.

    The pool is empty at the start, or serves what round-robin has placed. Prints how soon and how well requests are
    predicted, and how many meet their objectives beside the policy `default`, which starts at the same moment. A start
    takes some ten seconds.
    """
    results = {(workload, pool): _all(workload, load, pool, seeds, jobs) for workload in workloads for pool in pools}
    for (workload, _), found in results.items():
        click.echo(page(workload, found) + "\n")
    if json_file:
        flat: dict[str, float] = {}
        for (workload, _), found in results.items():
            flat |= figures(workload, found)
        write(json_file, flat, ("numpy", "onnxruntime"), {"workloads": workloads, "load": load, "seeds": seeds})


def _all(workload: str, load: float, pool: str, seeds: int, jobs: int) -> list[StartResult]:
    # The models' libraries have threads, which a fork would lose.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as processes:
        waiting = [processes.submit(measure_all, workload, load, pool, start, seeds) for start in STARTS]
        found: list[StartResult] = []
        for start, done in zip(STARTS, waiting, strict=True):
            found += done.result()
            click.echo(f"{workload}, {pool} pool: {start} is measured", err=True)
        return found


if __name__ == "__main__":
    main(prog_name="scripts/evaluate_cold_start.py")
