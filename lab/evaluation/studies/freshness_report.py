"""Runs the study of fresh metrics and writes its table: `python -m lab.evaluation.studies.freshness_report`.

It takes about an hour on two idle cores. An interrupted study goes on where it was, by the same command.
"""

import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from epp.scraping.pace import ScrapeInterval
from lab.bench.block import Block
from lab.bench.figures import rounded, write
from lab.evaluation.plan import BASE, OURS
from lab.evaluation.studies.freshness import (
    DIRECT_OF,
    DIRECT_S,
    INTERVALS_S,
    LOADS_RPS,
    PAGE_CPU_S,
    TRAFFIC,
    Freshness,
    FreshnessCase,
    measure,
    prepare_models,
)
from lab.markdown import table

POLICIES = (BASE, OURS)
ADAPTIVE = ScrapeInterval(0.05, 0.5)
INTERVALS = (*(ScrapeInterval(seconds, seconds) for seconds in INTERVALS_S), ADAPTIVE)
BLOCK = Block("lab.evaluation.studies.freshness_report --out")
_REQUESTS = 2000
_SEEDS = 2
_FRESHEST = INTERVALS[0]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=_SEEDS, type=click.IntRange(1), help="Repetitions with other requests.")
@click.option("--requests", default=_REQUESTS, type=click.IntRange(200), help="Requests of a run.")
@click.option("--workload", "workloads", multiple=True, type=click.Choice(list(LOADS_RPS)), help="Run only this one.")
@click.option("--jobs", default=min(2, os.cpu_count() or 1), type=click.IntRange(1), help="Processes that make runs.")
@click.option(
    "--folder",
    default="evaluation-out/freshness",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the runs' results and models. Results that are there are used again.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Page to write the table into.")
def main(
    seeds: int,
    requests: int,
    workloads: Sequence[str],
    jobs: int,
    folder: Path,
    json_file: Path | None,
    out: Path | None,
) -> None:
    """Print goodput by the time between two scrapes, with other traffic in the pool and without."""
    BLOCK.require_place(out)
    chosen = tuple(workloads or LOADS_RPS)
    cases = [FreshnessCase(*case) for case in product(chosen, POLICIES, TRAFFIC, INTERVALS, range(1, seeds + 1))]
    results = _run(cases, requests, jobs, folder)
    figures = figures_of(results)
    text = f"{tables(figures)}\n\n{_measured(chosen, requests, seeds)}"
    click.echo(text)
    if json_file:
        settings = {"workloads": chosen, "requests": requests, "seeds": seeds, "page_cpu_s": PAGE_CPU_S}
        write(json_file, figures, ("numpy", "onnxruntime"), settings)
    if out:
        BLOCK.write(out, text)


def _run(cases: Sequence[FreshnessCase], requests: int, jobs: int, folder: Path) -> list[Freshness]:
    """Return the results of all cases. Those of an earlier run with as many requests are read from the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{requests}.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    known = {one.case: one for one in (msgspec.json.decode(line, type=Freshness) for line in lines)}
    missing = [case for case in cases if case not in known]
    spawn = multiprocessing.get_context("spawn")  # the models' libraries have threads, which a fork would lose
    with ProcessPoolExecutor(jobs, spawn) as pool, file.open("ab") as results:
        models = {workload: folder / f"{workload}.models" for workload in sorted({case.workload for case in missing})}
        wanted = {workload: path for workload, path in models.items() if not path.exists()}
        for path, data in zip(wanted.values(), pool.map(prepare_models, wanted), strict=True):
            path.write_bytes(data)
        prepared = {workload: path.read_bytes() for workload, path in models.items()}
        running = [pool.submit(measure, case, prepared[case.workload], requests) for case in missing]
        done = track(as_completed(running), "runs", len(running), console=Console(stderr=True))
        for future in done:
            one = future.result()
            known[one.case] = one
            results.write(msgspec.json.encode(one) + b"\n")
            results.flush()
    return [known[case] for case in cases]


def figures_of(results: Iterable[Freshness]) -> dict[str, float]:
    """Return pages a second, the server's cores, and goodput: in requests/s, and over that with the freshest metrics.

    A ratio is the geometric mean over workloads and seeds, with the least and the greatest.
    """
    known = {one.case: one for one in results}
    figures: dict[str, float] = {}
    for traffic, interval in product(TRAFFIC, INTERVALS):
        cases = [case for case in known if (case.traffic, case.interval) == (traffic, interval)]
        if not cases:
            continue
        name = _name(traffic, interval)
        pages = float(np.mean([known[case].pages_per_s for case in cases]))
        figures |= {f"{name}_pages_per_s": pages, f"{name}_server_cores": pages * PAGE_CPU_S}
        for policy in POLICIES:
            own = [case for case in cases if case.policy == policy]
            fresh = [known[msgspec.structs.replace(case, interval=_FRESHEST)].goodput_rps for case in own]
            ratios = np.array([known[case].goodput_rps for case in own]) / fresh
            figures |= {
                f"{name}_goodput_{policy}": float(np.exp(np.log(ratios).mean())),
                f"{name}_goodput_{policy}_least": float(ratios.min()),
                f"{name}_goodput_{policy}_greatest": float(ratios.max()),
            }
            for workload in sorted({case.workload for case in own}):
                rps = [known[case].goodput_rps for case in own if case.workload == workload]
                figures[f"{name}_goodput_rps_{policy}_{workload}"] = float(np.mean(rps))
    return rounded(figures)


def tables(figures: Mapping[str, float]) -> str:
    """Return a table for each kind of traffic."""
    head = ["time between two scrapes", "pages/s of an endpoint", "its CPU, cores"]
    head += [f"goodput of `{policy}`" for policy in POLICIES]
    parts = []
    for traffic in TRAFFIC:
        rows = [_row(figures, traffic, interval) for interval in INTERVALS]
        parts.append(f"{traffic[0].upper()}{traffic[1:]}:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _row(figures: Mapping[str, float], traffic: str, interval: ScrapeInterval) -> list[str]:
    name = _name(traffic, interval)
    cells = [
        _text(interval).replace("-", " to "),
        f"{figures[f'{name}_pages_per_s']:.1f}",
        f"{figures[f'{name}_server_cores']:.3f}",
    ]
    for policy in POLICIES:
        mean, least, greatest = (figures[f"{name}_goodput_{policy}{end}"] for end in ("", "_least", "_greatest"))
        cells.append(f"{mean:.3f} ({least:.3f} to {greatest:.3f})")
    return cells


def _measured(workloads: Sequence[str], requests: int, seeds: int) -> str:
    return "\n".join(
        (
            f"Goodput is that over the same requests with metrics every 50 ms: the geometric mean of {len(workloads)} "
            "workloads",
            f"({', '.join(workloads)}), each with {seeds} seeds of {requests:,} requests (least to greatest),",
            "at a tenth above the load at which `default` attains 90%. A page costs a server "
            f"{PAGE_CPU_S * 1000:g} ms of CPU: vLLM",
            f"0.32.0's, of 61 kB, on one core of an AMD EPYC. Direct requests, one in {DIRECT_OF}, go to one endpoint "
            f"for {DIRECT_S:g} s,",
            "then to the next.",
        )
    )


def _name(traffic: str, interval: ScrapeInterval) -> str:
    return f"freshness_{traffic}_{_text(interval)}".replace(" ", "_").replace("-", "_")


def _text(interval: ScrapeInterval) -> str:
    return "-".join(f"{seconds * 1000:g} ms" for seconds in dict.fromkeys(interval))


if __name__ == "__main__":
    main()
