"""Measure a prediction server with an external load generator, and its ratios to a peer with the same sidecar API."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from headroom.processes.ports import free_port
from lab.bench.figures import report, steps, write
from lab.bench.predictor.grpc_load import grpc_load
from lab.bench.predictor.load import MeasuredServer, ServerMeasurement, load, require_wrk
from lab.bench.predictor.serving import memory_over_swaps, over_onnxruntime, ready_s, swaps_under_load
from lab.bench.predictor.store import Generations
from lab.bench.trainer.serving import own_server
from trainer.settings import FitSettings

_CONNECTIONS = (1, 8, 32, 128)
_SIZES = (None, 10, 100, 1000)
_WARM_UP_S = 1.0
_PACKAGES = ("onnxruntime", "numpy", "msgspec", "uvicorn", "httptools", "uvloop", "starlette")
Loads = dict[tuple[int | None, int], ServerMeasurement]


@dataclass(frozen=True)
class BenchOptions:
    """The command's options."""

    seconds: float
    rounds: int
    swaps: int
    starts: int
    trees: int
    depth: int
    peer: str
    peer_pid: int | None


def measure(targets: dict[str, MeasuredServer], seconds: float) -> dict[str, Loads]:
    """Measure every size at every number of connections. The targets take turns in each case."""
    found: dict[str, Loads] = {name: {} for name in targets}
    cases = [(rows, connections) for rows in _SIZES for connections in _CONNECTIONS]
    for case in steps(cases, "load"):
        for name, target in targets.items():
            load(target, *case, min(seconds, _WARM_UP_S))
            one = found[name][case] = load(target, *case, seconds)
            if one.failed:
                click.echo(f"{name}: {one.failed} failures at {case[1]} connections, {case[0] or 1} rows", err=True)
    return found


def figures_of(loads: Loads) -> dict[str, float]:
    figures: dict[str, float] = {}
    for (rows, connections), one in loads.items():
        name = _name(rows)
        figures |= {
            f"{name}_rps_c{connections}": one.per_s,
            f"{name}_p50_ms_c{connections}": one.p50_ms,
            f"{name}_p99_ms_c{connections}": one.p99_ms,
            f"{name}_failed_c{connections}": one.failed,
            f"{name}_cpu_s_per_million_rows_c{connections}": one.cpu_s * 1e6 / (one.requests * (rows or 1)),
        }
        if rows:
            figures[f"{name}_rows_per_s_c{connections}"] = one.per_s * rows
    figures["bulk100_rows_per_s"] = figures["bulk100_rows_per_s_c8"]
    return figures


def ratios(ours: Loads, theirs: Loads) -> dict[str, float]:
    """Return ratios of our figures to the peer's."""
    found: dict[str, float] = {}
    for (rows, connections), one in ours.items():
        name, other = _name(rows), theirs[rows, connections]
        found |= {
            f"peer_{name}_rps_ratio_c{connections}": one.per_s / other.per_s,
            f"peer_{name}_p50_ratio_c{connections}": one.p50_ms / other.p50_ms,
            f"peer_{name}_p99_ratio_c{connections}": one.p99_ms / other.p99_ms,
            f"peer_{name}_cpu_ratio_c{connections}": one.cpu_s / one.requests / (other.cpu_s / other.requests),
        }
    found["peer_bulk100_rows_ratio"] = ours[100, 8].per_s / theirs[100, 8].per_s
    return found


def _name(rows: int | None) -> str:
    return "single" if rows is None else f"bulk{rows}"


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=5.0, type=click.FloatRange(0.2), help="Time of each measurement.")
@click.option("--rounds", default=5, type=click.IntRange(1), help="Pairs of measurements with and without swaps.")
@click.option("--swaps", default=1000, type=click.IntRange(2), help="Number of swaps, for the growth of memory.")
@click.option("--starts", default=5, type=click.IntRange(1), help="Number of starts, for the time to ready.")
@click.option("--trees", default=FitSettings().trees, type=click.IntRange(2), help="Trees in each of our two models.")
@click.option("--depth", default=FitSettings().depth, type=click.IntRange(1), help="Depth of the trees.")
@click.option("--quick", is_flag=True, help="Measure roughly: at most 1 s each, 1 round, 1 start and 50 swaps.")
@click.option("--peer", default="", help="URL of another server with the same sidecar API, measured in the same run.")
@click.option("--peer-pid", type=int, help="The peer's process on this machine, to measure its CPU and memory.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(json_file: Path | None, quick: bool, **options: Any) -> None:
    """Measure this project's predictor on this machine, and print the figures and the ratios to --peer."""
    if quick:
        least = {"seconds": 1.0, "rounds": 1, "swaps": 50, "starts": 1}
        options |= {name: min(options[name], value) for name, value in least.items()}
    plan = BenchOptions(**options)
    try:
        require_wrk()
        figures = measure_all(plan)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
    report(figures)
    if json_file:
        settings = {name: value for name, value in options.items() if not name.startswith("peer")}
        write(json_file, figures, _PACKAGES, {**settings, "peer": bool(plan.peer), "workers": 1})


def measure_all(plan: BenchOptions) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        generations = Generations(Path(folder), plan.trees, plan.depth)
        grpc_port = free_port()
        flags = ["--model-store", generations.location, "--model-sync-interval-sec", "0.1"]
        flags += ["--grpc-port", str(grpc_port)]
        figures = {"ready_s": ready_s(generations.location, plan.starts)}
        with own_server("predictor", *flags) as (url, process):
            ours = MeasuredServer(url, process)
            targets = {"ours": ours}
            if plan.peer:
                process_of_peer = psutil.Process(plan.peer_pid) if plan.peer_pid else None
                targets["peer"] = MeasuredServer(plan.peer.rstrip("/"), process_of_peer)
            loads = measure(targets, plan.seconds)
            figures |= figures_of(loads["ours"]) | {"rss_mib": ours.rss_mib}
            if plan.peer:
                figures |= {f"peer_{name}": value for name, value in figures_of(loads["peer"]).items()}
                figures |= ratios(loads["ours"], loads["peer"])
                figures["peer_rss_mib"] = targets["peer"].rss_mib
                figures["peer_rss_ratio"] = ours.rss_mib / targets["peer"].rss_mib
            for connections in (1, 8, 32):
                figures |= grpc_load(f"127.0.0.1:{grpc_port}", ours, connections, plan.seconds)
            figures |= over_onnxruntime(ours, generations.graphs)
            figures |= swaps_under_load(ours, generations, plan.seconds, plan.rounds)
            figures |= memory_over_swaps(ours, generations, plan.swaps)
    return {name: value for name, value in figures.items() if value == value}


if __name__ == "__main__":
    main()
