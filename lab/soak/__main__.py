"""Run the loop for long under unrest, and show that nothing grows and nothing is lost."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from lab.bench.block import Block
from lab.bench.figures import write
from lab.loop.running import exit_status, new_folder, running_stack
from lab.loop.stack import StackConfig, unused_ports
from lab.loop.supervisor import Supervisor
from lab.loop.terminal import Terminal
from lab.soak.clients import ClientReport, send
from lab.soak.unrest import change_endpoints, rewrite_configuration

BLOCK: Final = Block("scripts/soak --out")
_HARDWARE: Final = ("fast", "fast", "fast", "slow")
_LOOK_S: Final = 1.0
# The picker ends its last requests after this time at the latest.
_IDLE_S: Final = 20.0
_FRONTS: Final = ("http2", "grpcio")
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_PACKAGES: Final = ("grpcio", "uvloop")


@dataclass
class Levels:
    """The picker's resources over time, over all of its processes."""

    rss_mib: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One run: its front and workers, what the clients saw, the picker's levels, and what stayed in flight."""

    front: str
    workers: int
    seen: ClientReport
    levels: Levels
    in_flight: float

    @property
    def name(self) -> str:
        return f"{self.front}_{self.workers}"

    @property
    def is_clean(self) -> bool:
        return not self.seen.lost and not self.in_flight


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=60.0, type=click.FloatRange(0.05), help="Time of all runs together.")
@click.option("--rate", default=50.0, type=click.FloatRange(1, 1000), help="Requests a second.")
@click.option(
    "--front", "fronts", multiple=True, default=_FRONTS, type=click.Choice(_FRONTS), help="gRPC fronts; repeatable."
)
@click.option(
    "--workers", multiple=True, default=(1, 2), type=click.IntRange(1, 16), help="Picker processes; repeatable."
)
@click.option("--out", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(page: Path | None, **options: Any) -> None:
    """Send requests through the whole loop, and abort a tenth of them, while endpoints come and go and the picker's
    configuration is rewritten.

    Each front runs with each number of workers, for an equal share of the time. The exit status is 1 if a request was
    lost, or if one stayed in flight.
    """
    if page and not BLOCK.has_place(page):
        raise click.UsageError(f"{page} has no place for the table: {BLOCK.marks}")
    console = Console()
    sys.exit(asyncio.run(exit_status(_run(console, page=page, **options), console)))


async def _run(
    console: Console,
    minutes: float,
    rate: float,
    fronts: Sequence[str],
    workers: Sequence[int],
    page: Path | None,
    json_file: Path | None,
) -> None:
    runs = list(product(fronts, workers))
    seconds = minutes * 60 / len(runs)
    cells = [await _soak(console, front, count, rate, seconds) for front, count in runs]
    console.print(_table(cells))
    if page:
        BLOCK.write(page, _markdown(cells, rate, seconds))
    if json_file:
        write(json_file, _figures(cells), _PACKAGES, {"minutes": minutes, "rate": rate})
    if not all(cell.is_clean for cell in cells):
        raise SystemExit(1)


async def _soak(console: Console, front: str, workers: int, rate: float, seconds: float) -> Cell:
    config = StackConfig(
        folder=new_folder(),
        hardware=_HARDWARE,
        ports=unused_ports(len(_HARDWARE)),
        picker_flags=["--grpc-front", front, "--workers", workers],
    )
    seen, levels = ClientReport(), Levels()
    with Terminal(console) as terminal:
        async with running_stack(config, terminal) as supervisor:
            terminal.say(f"{front}, {workers} workers: {seconds:.0f} s at {rate:g} requests/s")
            unrest = [
                asyncio.create_task(change_endpoints(config)),
                asyncio.create_task(rewrite_configuration(config)),
                asyncio.create_task(_watch(supervisor, levels)),
            ]
            await supervisor.guard(send(config.gateway_url, rate, seconds, seen))
            for task in unrest:
                task.cancel()
            await asyncio.gather(*unrest, return_exceptions=True)
            in_flight = await _in_flight(config)
    return Cell(front, workers, seen, levels, in_flight)


async def _watch(supervisor: Supervisor, levels: Levels) -> None:
    """Read the picker's resources until cancelled."""
    picker = psutil.Process(supervisor.pid("epp"))
    while True:
        processes = [picker, *picker.children(recursive=True)]
        levels.rss_mib.append(sum(one.memory_info().rss for one in processes) / 2**20)
        levels.descriptors.append(sum(one.num_fds() for one in processes))
        levels.threads.append(sum(one.num_threads() for one in processes))
        await asyncio.sleep(_LOOK_S)


async def _in_flight(config: StackConfig) -> float:
    """Return the requests that the picker counts as in flight, once it has had time to end them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _IDLE_S
    while True:
        async with aiohttp.request("GET", f"{config.picker_url}/metrics") as response:
            page = await response.text()
        families = text_string_to_metric_families(page)
        left = sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "headroom_epp_in_flight_requests"
        )
        if not left or loop.time() > deadline:
            return left
        await asyncio.sleep(_LOOK_S)


def _thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the second and of the last third: the first one warms up."""
    third = max(len(values) // 3, 1)
    return float(np.median(values[third : 2 * third] or values)), float(np.median(values[-third:]))


def _p99s(seen: ClientReport) -> tuple[float, float]:
    """Return the p99 in ms of the requests in the second and in the last third."""
    last_s = max((at_s for at_s, _ in seen.took), default=0.0)
    parts = [
        [ms for at_s, ms in seen.took if begin * last_s / 3 <= at_s <= (begin + 1) * last_s / 3] for begin in (1, 2)
    ]
    return float(np.percentile(parts[0] or [np.nan], 99)), float(np.percentile(parts[1] or [np.nan], 99))


def _figures(cells: Sequence[Cell]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for cell in cells:
        before, after = _p99s(cell.seen)
        figures |= {
            f"soak_{cell.name}_sent": cell.seen.sent,
            f"soak_{cell.name}_lost": len(cell.seen.lost),
            f"soak_{cell.name}_aborted": cell.seen.aborted,
            f"soak_{cell.name}_in_flight": cell.in_flight,
            f"soak_{cell.name}_p99_ratio": after / before,
        }
        for level in ("rss_mib", "descriptors", "threads"):
            middle, last = _thirds(getattr(cell.levels, level))
            figures |= {f"soak_{cell.name}_{level}": last, f"soak_{cell.name}_{level}_growth": last - middle}
    return {name: value for name, value in figures.items() if value == value}


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


def _rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    return [
        (
            f"{cell.front}, {cell.workers}",
            f"{len(cell.seen.lost)} of {cell.seen.sent:,}",
            f"{cell.seen.aborted:,}",
            f"{cell.in_flight:g}",
            "{:.0f}, {:.0f}".format(*_p99s(cell.seen)),
            "{:.0f}, {:.0f}".format(*_thirds(cell.levels.rss_mib)),
            "{:.0f}, {:.0f}".format(*_thirds(cell.levels.descriptors)),
            "{:.0f}, {:.0f}".format(*_thirds(cell.levels.threads)),
        )
        for cell in cells
    ]


def _table(cells: Sequence[Cell]) -> Table:
    table = Table(*_HEAD)
    for row in _rows(cells):
        table.add_row(*row)
    for cell in cells:
        if cell.seen.lost:
            table.caption = f"lost: {', '.join(sorted(set(cell.seen.lost))[:5])}"
    return table


def _markdown(cells: Sequence[Cell], rate: float, seconds: float) -> str:
    lines = [_HEAD, ("---",) * len(_HEAD), *_rows(cells)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\n{rate:g} requests/s, {seconds / 60:.0f} minutes a row. Pairs are of the second and of the last "
        "third of the time."
    )


if __name__ == "__main__":
    main()
