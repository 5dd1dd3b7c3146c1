"""Run the loop for long under unrest, and show that nothing grows and nothing is lost."""

import asyncio
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from headroom.processes.running import exit_status
from lab.bench.block import Block
from lab.bench.figures import write
from lab.loop.running import new_folder, running_stack
from lab.loop.stack import StackConfig, unused_ports
from lab.loop.terminal import Terminal
from lab.soak.clients import ClientReport, send
from lab.soak.figures import SoakRun, figures
from lab.soak.plot import draw
from lab.soak.report import markdown, table
from lab.soak.resources import Levels, in_flight_at_end, watch
from lab.soak.unrest import change_endpoints, rewrite_configuration

BLOCK: Final = Block("scripts/soak --out")
_HARDWARE: Final = ("fast", "fast", "fast", "slow")
# The picker's default. The loop's other commands keep more, which fill memory for as long as a soak may last.
_DECISIONS: Final = 1_000
_FRONTS: Final = ("http2", "grpcio")
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_PLOT: Final = "soak.png"
_PACKAGES: Final = ("grpcio", "uvloop")


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=60.0, type=click.FloatRange(0.05), help="Time of all runs together.")
@click.option("--rate", default=50.0, type=click.FloatRange(1, 1000), help="Requests a second.")
@click.option(
    "--front", "fronts", multiple=True, default=_FRONTS, type=click.Choice(_FRONTS), help="gRPC fronts; repeatable."
)
@click.option(
    "--workers", multiple=True, default=(1, 2), type=click.IntRange(1, 16), help="Picker processes; repeatable."
)
@click.option("--out", "page", type=_FILE, help=f"Write the table into this page, and {_PLOT} beside it.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file.")
def main(page: Path | None, **options: Any) -> None:
    """Send requests through the whole loop, and abort a tenth of them, while endpoints come and go and the picker's
    configuration is rewritten.

    Each front runs with each number of workers, for an equal share of the time. The exit status is 1 if a request was
    lost, or if one stayed in flight.
    """
    BLOCK.require_place(page)
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
    done = [await _soak(console, front, count, rate, seconds) for front, count in runs]
    console.print(table(done))
    if page:
        draw(done, page.with_name(_PLOT))
        BLOCK.write(page, markdown(done, rate, seconds, _PLOT))
    if json_file:
        write(json_file, figures(done), _PACKAGES, {"minutes": minutes, "rate": rate})
    if not all(run.is_clean for run in done):
        raise SystemExit(1)


async def _soak(console: Console, front: str, workers: int, rate: float, seconds: float) -> SoakRun:
    config = StackConfig(
        folder=new_folder(),
        hardware=_HARDWARE,
        ports=unused_ports(len(_HARDWARE)),
        picker_flags=["--grpc-front", front, "--workers", workers, "--debug-decisions", _DECISIONS],
    )
    seen, levels = ClientReport(), Levels()
    with Terminal(console) as terminal:
        async with running_stack(config, terminal) as supervisor:
            terminal.say(f"{front}, {workers} workers: {seconds:.0f} s at {rate:g} requests/s")
            unrest = [
                asyncio.create_task(change_endpoints(config)),
                asyncio.create_task(rewrite_configuration(config)),
                asyncio.create_task(watch(supervisor.pid("epp"), levels)),
            ]
            await supervisor.guard(send(config.gateway_url, rate, seconds, seen))
            for task in unrest:
                task.cancel()
            for error in await asyncio.gather(*unrest, return_exceptions=True):
                # Not the cancellation: a task has ended early.
                if isinstance(error, Exception):
                    raise error
            in_flight = await in_flight_at_end(config.picker_url)
    return SoakRun(front, workers, seen, levels, in_flight)


if __name__ == "__main__":
    main()
