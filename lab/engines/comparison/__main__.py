"""`scripts/compare_engines.py`: the same requests to a real engine and to its calibrated twin in virtual time."""

import asyncio
import dataclasses
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from headroom.processes.exceptions import PartError
from headroom.processes.ports import free_port
from headroom.processes.running import exit_status
from headroom.processes.supervisor import Supervisor
from lab.bench.figures import write
from lab.calibration.exceptions import MeasureError
from lab.calibration.server import measure
from lab.calibration.server.client import HttpServer
from lab.calibration.server.command import measure_server
from lab.calibration.server.guard import Guard
from lab.calibration.server.twin import Twin
from lab.engines.comparison import journal
from lab.engines.comparison.errors import Pairs, figures, table
from lab.engines.comparison.scenarios import MIXES, Mix, capacity_rps, requests
from lab.engines.vllm import KINDS, vllm
from simulator.calibration_file import format_calibration
from simulator.exceptions import CalibrationError
from simulator.hardware import Hardware, measured_hardware, read_calibration

_COLUMNS = ("mix", "TTFT error %", "TPOT error %", "E2E error %", "E2E bias %", "two runs: TTFT %", "TPOT %", "E2E %")
_FLAGS = ("--scheduling-policy", "priority")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What to compare. `folder` keeps the calibration and the runs."""

    kind: str
    core: int
    server: str
    folder: Path
    mixes: tuple[Mix, ...]
    seconds: float
    runs: int
    seed: int
    minutes: float
    most_noise: float


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--kind", default="tiny", type=click.Choice(list(KINDS)), help="Model of the vLLM server to start.")
@click.option("--core", default=0, type=click.IntRange(0), help="Core of that server; this process takes the others.")
@click.option(
    "--server", default="", help="URL of a running server instead, started with --scheduling-policy priority."
)
@click.option(
    "--folder",
    default="engines-out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the calibration and the runs. What it has already is not run again.",
)
@click.option(
    "--only", multiple=True, type=click.Choice([mix.name for mix in MIXES]), help="Run only this mix; repeatable."
)
@click.option("--seconds", default=30.0, type=click.FloatRange(1), help="Length of a run.")
@click.option("--runs", default=2, type=click.IntRange(1), help="Runs of the same requests on the engine.")
@click.option("--seed", default=1, help="Seed of the requests.")
@click.option("--minutes", default=8.0, type=click.FloatRange(0.1), help="Longest time to calibrate.")
@click.option("--max-noise", default=10.0, type=click.FloatRange(0.1), help="As of headroom calibrate, in percent.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(only: tuple[str, ...], max_noise: float, json_file: Path | None, **options: object) -> None:
    """Send the same requests to a real engine and to its calibrated twin, and print how far the twin is off.

    The twin is the simulator in virtual time, with the calibration that `headroom calibrate` measures. Each mix runs
    twice on the engine: how far these two runs are apart is the machine's noise, which no twin can be better than.
    """
    mixes = tuple(mix for mix in MIXES if not only or mix.name in only)
    settings = Comparison(mixes=mixes, most_noise=max_noise / 100, **options)  # type: ignore[arg-type]
    settings.folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    status = asyncio.run(exit_status(_compare(settings, json_file, console), console))
    sys.exit(status)


async def _compare(settings: Comparison, json_file: Path | None, console: Console) -> None:
    def tell(line: str) -> None:
        console.print(line, highlight=False)

    try:
        if settings.server:
            await _run_all(settings, settings.server, tell)
        else:
            await _with_own_server(settings, tell)
        hardware = _twin_hardware(settings)
    except (MeasureError, CalibrationError) as error:
        raise PartError(str(error)) from error
    by_mix, whole = errors_of(settings, hardware)
    _print(by_mix, whole)
    if json_file:
        values = {
            name: value for name, value in dataclasses.asdict(settings).items() if name not in ("mixes", "folder")
        }
        # Names of mixes have hyphens and points, so that they never look like a figure of all.
        parts = {f"{name}@{mix}": value for mix, row in by_mix.items() for name, value in row.items()}
        write(json_file, whole | parts, ("numpy", "aiohttp"), values)


async def _with_own_server(settings: Comparison, tell: Callable[[str], None]) -> None:
    """Start a server on its core, and run everything from the other cores."""
    others = os.sched_getaffinity(0) - {settings.core}
    supervisor = Supervisor(settings.folder, lambda name: None)
    port = free_port()
    part = vllm(settings.kind, port, core=settings.core, flags=_FLAGS)
    try:
        tell(f"starting {part.name} (a minute or more); its log is in {settings.folder}")
        await supervisor.start([part], lambda name: tell(f"{name} is ready"))
        if others:
            os.sched_setaffinity(0, others)
        await supervisor.guard(_run_all(settings, f"http://127.0.0.1:{port}", tell))
    finally:
        await supervisor.stop()


async def _run_all(settings: Comparison, url: str, tell: Callable[[str], None]) -> None:
    """Calibrate, and run every mix on the engine as often as it must be; skip what the folder has."""
    if not _calibration(settings).exists():
        given = measure.Given(limit_s=settings.minutes * 60, most_noise=settings.most_noise)
        calibration, found = await measure_server(HttpServer(url, ""), given, settings.kind, patience_s=120.0)
        _calibration(settings).write_text(format_calibration(calibration))
        tell(f"calibrated: half of the times are surer than {found['noise_median_pct']:.1f} %")
    hardware = _twin_hardware(settings)
    done = journal.read(_journal(settings))
    # In an order of its own for each run, so that the machine's moods don't fall on one mix.
    order = random.Random(settings.seed)
    waiting = [(mix, run) for run in range(settings.runs) for mix in order.sample(settings.mixes, len(settings.mixes))]
    waiting = [(mix, run) for mix, run in waiting if (mix.name, run) not in done]
    async with HttpServer(url, "", watches=False) as server:
        await server.choose_model()
        guard = Guard(server, tell)
        for number, (mix, run) in enumerate(waiting, 1):
            rate = _rate(settings, mix, hardware)
            tell(f"{number} of {len(waiting)}: {mix.name}, run {run + 1}, {rate:.1f} requests a second")
            asks = requests(mix, settings.seed, f"run-{run}", rate, _count(settings, rate), hardware)
            await guard.until_idle()
            seen = journal.see(asks, await server.run(asks))
            journal.append(_journal(settings), journal.Record(mix.name, run, rate, seen))


def errors_of(settings: Comparison, hardware: Hardware) -> tuple[Mapping[str, Mapping[str, float]], dict[str, float]]:
    """Return the figures by mix, and those of all."""
    done = journal.read(_journal(settings))
    twins: dict[str, list[Pairs]] = {}
    repeats: dict[str, list[Pairs]] = {}
    for mix in settings.mixes:
        records = [done[mix.name, run] for run in range(settings.runs) if (mix.name, run) in done]
        for record in records:
            asks = requests(mix, settings.seed, f"run-{record.run}", record.rate, len(record.seen), hardware)
            simulated = journal.see(asks, Twin(hardware).replay(asks))
            twins.setdefault(mix.name, []).append(Pairs(record.seen, simulated))
        for first, again in pairwise(records):
            repeats.setdefault(mix.name, []).append(Pairs(first.seen, again.seen))
    by_mix = {
        name: figures("engine", pairs) | figures("engine_repeat", repeats.get(name, ()))
        for name, pairs in twins.items()
    }
    whole = figures("engine", [one for pairs in twins.values() for one in pairs])
    whole |= figures("engine_repeat", [one for pairs in repeats.values() for one in pairs])
    whole["engine_requests"] = sum(len(pairs.wanted) for of in twins.values() for pairs in of)
    return by_mix, whole


def _twin_hardware(settings: Comparison) -> Hardware:
    measured = measured_hardware("twin", read_calibration(_calibration(settings)))
    return dataclasses.replace(measured, scheduling_policy="priority")


def _rate(settings: Comparison, mix: Mix, hardware: Hardware) -> float:
    return mix.load * capacity_rps(mix, hardware, settings.seed)


def _count(settings: Comparison, rate: float) -> int:
    return max(round(rate * settings.seconds), 4)


def _calibration(settings: Comparison) -> Path:
    return settings.folder / "calibration.csv"


def _journal(settings: Comparison) -> Path:
    return settings.folder / "runs.jsonl"


def _print(by_mix: Mapping[str, Mapping[str, float]], whole: Mapping[str, float]) -> None:
    shown = Table(*_COLUMNS, title="median absolute errors of the twin, request by request")
    rows: Sequence[tuple[str, ...]] = table({**by_mix, "all": whole})
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


if __name__ == "__main__":
    main(prog_name="scripts/compare_engines.py")
