"""Break the loop in every way of a table, and show what a client sees."""

import asyncio
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from headroom.processes.ports import free_port
from headroom.processes.running import exit_status
from headroom.processes.supervisor import Supervisor
from lab import markdown
from lab.bench.block import Block
from lab.bench.figures import write
from lab.chaos.bucket import LOCATION, BucketServer
from lab.chaos.faults import KINDS, NO_FAULT, Fault, LoopKind, Site, faults
from lab.chaos.links import Links
from lab.chaos.measuring import FaultReport, Times, measure
from lab.chaos.store_faults import isolate_mounts, volume
from lab.loop.running import new_folder
from lab.loop.stack import StackConfig, parts, unused_ports
from lab.loop.terminal import Terminal

BLOCK = Block("scripts/chaos --out")
_HARDWARE = ("fast", "fast", "slow")
# Envoy's default, and the chart's.
_MESSAGE_TIMEOUT_S = 0.2
_WARM_UP = Times(2.0, 2.0, 8.0)
_WARNING = re.compile(rb"warn|error", re.IGNORECASE)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="TEXT", multiple=True, help="Only faults whose name contains TEXT; repeatable.")
@click.option("--before", "before_s", default=5.0, type=click.FloatRange(2), help="Seconds before each fault.")
@click.option("--during", "during_s", default=6.0, type=click.FloatRange(0.1), help="Seconds that a fault lasts.")
@click.option("--after", "after_s", default=12.0, type=click.FloatRange(2), help="Seconds after each fault.")
@click.option("--rate", default=10.0, type=click.FloatRange(1, 200), help="Requests a second of the client.")
@click.option("--full-duplex", is_flag=True, help="Envoy drives the picker as a gateway does.")
@click.option("--list", "is_list", is_flag=True, help="Print the names of the faults, and stop.")
@click.option(
    "--out",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table into this page.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(only: Sequence[str], is_list: bool, page: Path | None, **options: Any) -> None:
    """Break each part of the loop and every pair of parts, and print what a client saw meanwhile.

    Real Envoy, picker, trainer and predictors run on this machine, in front of simulated servers. The exit status is 1
    if a fault that the picker must hide lost a request, or if the loop had not recovered at the end.
    """
    chosen = [fault for fault in faults() if not only or any(text in fault.name for text in only)]
    if is_list:
        click.echo("\n".join(fault.name for fault in chosen))
        return
    if not chosen:
        raise click.UsageError(f"no fault has {' or '.join(map(repr, only))} in its name: see --list")
    BLOCK.require_place(page)
    console = Console()
    if any(fault.needs_mounts for fault in chosen):
        # Where mounting is allowed, the store lies on a volume of its own, which ends with this process.
        options["has_mounts"] = not (reason := isolate_mounts())
        if reason:
            left_out = [fault.name for fault in chosen if fault.needs_mounts]
            console.print(f"left out, since {reason}: {', '.join(left_out)}", soft_wrap=True)
            chosen = [fault for fault in chosen if not fault.needs_mounts]
    sys.exit(asyncio.run(exit_status(_run(console, chosen, page=page, **options), console)))


async def _run(
    console: Console,
    chosen: Sequence[Fault],
    before_s: float,
    during_s: float,
    after_s: float,
    rate: float,
    full_duplex: bool,
    page: Path | None,
    json_file: Path | None,
    has_mounts: bool = False,
) -> None:
    folder, times = new_folder(), Times(before_s, during_s, after_s)
    seen: list[FaultReport] = []
    with Terminal(console) as terminal:
        step = terminal.begin(f"{len(chosen)} faults", len(chosen))
        for kind in KINDS:
            faults_here = [fault for fault in chosen if fault.kind == kind]
            if faults_here:
                config = _config(folder / kind, full_duplex, kind)
                links = Links(config) if kind == "relayed" else None
                with volume(config.store) if has_mounts and kind == "folder" else nullcontext():
                    seen += await _measure_loop(config, links, faults_here, times, rate, step)
    _report(console, seen)
    if page:
        BLOCK.write(page, _markdown(seen, times, rate))
    if json_file:
        settings = {"rate": rate, "full_duplex": full_duplex, "before_s": before_s, "during_s": during_s}
        write(json_file, dict(_figures(seen)), ("grpcio", "aiohttp"), settings)
    broken = [one.fault.name for one in seen if _is_broken(one)]
    if broken:
        console.print(f"[red]broken promises:[/] {', '.join(broken)}; logs are in {folder}", soft_wrap=True)
        raise SystemExit(1)
    shutil.rmtree(folder)


def _config(folder: Path, full_duplex: bool, kind: LoopKind) -> StackConfig:
    folder.mkdir()
    return StackConfig(
        folder=folder,
        hardware=_HARDWARE,
        ports=unused_ports(len(_HARDWARE)),
        full_duplex=full_duplex,
        message_timeout_s=_MESSAGE_TIMEOUT_S,
        bucket=LOCATION if kind == "bucket" else "",
    )


async def _measure_loop(
    config: StackConfig,
    links: Links | None,
    chosen: Sequence[Fault],
    times: Times,
    rate: float,
    step: Callable[[], None],
) -> list[FaultReport]:
    """Run one loop, and measure the faults in it one after the other."""
    supervisor = Supervisor(config.folder, lambda name: None)
    bucket = BucketServer(free_port()) if config.bucket else None
    extra = bucket.environment if bucket else {}
    if links:
        config = replace(config, picker_sees=links.picker, envoy_sees=links.envoy, metrics_ports=links.metrics_ports)
    # Any part may be killed here.
    stack = [replace(part, redundant=True, env={**part.env, **extra}) for part in parts(config)]
    seen = []
    try:
        if bucket:
            await bucket.start()
        if links:
            await links.start()
        await supervisor.start(stack, lambda name: None)
        site = Site(config, supervisor, bucket, links)
        await measure(site, NO_FAULT, _WARM_UP, rate, lambda: 0)
        for fault in chosen:
            seen.append(await measure(site, fault, times, rate, lambda: _warnings(supervisor)))
            step()
    finally:
        await supervisor.stop()
        if bucket:
            await bucket.stop()
        if links:
            await links.stop()
    return seen


def _warnings(supervisor: Supervisor) -> int:
    return sum(len(_WARNING.findall(log.read_bytes())) for log in supervisor.logs())


def _is_broken(one: FaultReport) -> bool:
    return one.recovery_s is None or (one.fault.open_promise and one.lost_in_all > 0)


def _figures(seen: Iterable[FaultReport]) -> Iterable[tuple[str, float]]:
    for one in seen:
        name = re.sub(r"\W+", "_", one.fault.name)
        yield f"{name}_sent", one.sent
        yield f"{name}_lost", one.lost_in_all
        yield f"{name}_p99_before_ms", one.before_p99_ms
        yield f"{name}_p99_during_ms", one.during_p99_ms
        if one.recovery_s is not None:
            yield f"{name}_recovery_s", one.recovery_s


def _markdown(seen: Iterable[FaultReport], times: Times, rate: float) -> str:
    head = ("fault", "lost of all", "p99 ms before", "p99 ms during", "recovery s")
    rows = [
        (
            one.fault.name,
            f"{one.lost_in_all} of {one.sent}",
            f"{one.before_p99_ms:.0f}",
            f"{one.during_p99_ms:.0f}",
            _recovery(one),
        )
        for one in seen
    ]
    below = f"{rate:g} requests/s; each fault lasted {times.during_s:g} s. p99 is of the TTFT."
    return f"{markdown.table(head, rows)}\n\n{below}"


def _recovery(one: FaultReport) -> str:
    return "none" if one.recovery_s is None else f"{one.recovery_s:.1f}"


def _report(console: Console, seen: Iterable[FaultReport]) -> None:
    table = Table("fault", "lost", "p99 ms before", "during", "recovery s", "warnings")
    for one in seen:
        lost = ", ".join(f"{count}: {error}" for error, count in one.lost.items()) or "0"
        table.add_row(
            one.fault.name,
            lost,
            f"{one.before_p99_ms:.0f}",
            f"{one.during_p99_ms:.0f}",
            _recovery(one),
            str(one.warnings),
        )
    console.print(table)


if __name__ == "__main__":
    main()
