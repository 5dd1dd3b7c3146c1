"""Attack both gRPC fronts of the picker over HTTP/2, and print what a well-behaved neighbour noticed."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from lab import markdown
from lab.attack import frames
from lab.attack.bodies import BODY_ATTACKS
from lab.attack.neighbour import NeighbourReport, ask
from lab.bench.block import Block
from lab.bench.epp.pickers import Setting, run_picker
from lab.bench.epp.servers import model_servers
from lab.bench.epp.target import MeasuredPicker
from lab.bench.figures import steps, write

BLOCK = Block("scripts/attack --out")
_ROOT = Path(__file__).parents[2]
_PACKAGES = ("grpcio", "hpack", "protobuf", "uvloop")
_FRONTS = {"own": "http2", "grpcio": "grpcio"}
_NONE = "none"
ATTACKS = (*frames.ATTACKS, *BODY_ATTACKS)
_ENDPOINTS = 4
_WARM_UP_S = 1.0
_COLUMNS = ("p99 ms", "answered", "MiB")
_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Outcome:
    """What a neighbour noticed of an attack, and the picker's largest resident memory meanwhile."""

    served: NeighbourReport
    rss_mib: float


Outcomes = Mapping[tuple[str, str], Outcome]
"""By attack and front."""


def _names(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ATTACKS]:
        raise click.BadParameter(f"{', '.join(unknown)}: expected some of {', '.join(ATTACKS)}")
    return names


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--only", "names", default=",".join(ATTACKS), callback=_names, help="Attacks to run, comma-separated.")
@click.option("--seconds", default=7.0, type=click.FloatRange(0.1), help="Time of each attack.")
@click.option(
    "--front",
    "fronts",
    multiple=True,
    default=list(_FRONTS),
    type=click.Choice(list(_FRONTS)),
    help="gRPC front to attack: the picker's own or grpcio's; repeatable.",
)
@click.option("--out", "page", type=_FILE, help="Write the table into this page.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file.")
def main(names: list[str], seconds: float, fronts: Sequence[str], page: Path | None, json_file: Path | None) -> None:
    """Run one attacker at a time against a picker, beside a neighbour that sends 20 requests/s.

    The table has the neighbour's 99th percentile in ms, the requests that were answered within 10 s of those sent, and
    the picker's largest resident memory in MiB. The first row is without an attack.
    """
    BLOCK.require_place(page)
    cases = [(name, front) for name in (_NONE, *names) for front in fronts]
    with model_servers(_ENDPOINTS, large_pages=False) as endpoints:
        outcomes = {case: _attack(*case, seconds, endpoints) for case in steps(cases, "attacks")}
    Console(width=120).print(_table(outcomes, fronts))
    if page:
        BLOCK.write(page, _markdown(outcomes, fronts, seconds))
    if json_file:
        write(json_file, _figures(outcomes, fronts), _PACKAGES, {"seconds": seconds, "attacks": names})


def _attack(name: str, front: str, seconds: float, endpoints: Sequence[str]) -> Outcome:
    with run_picker(Setting(endpoints), [f"--grpc-front={_FRONTS[front]}"], front) as target:
        rss_mib = [target.rss_mib]
        asyncio.run(ask(target.address, _WARM_UP_S, lambda: None))
        with _attacker(name, target):
            served = asyncio.run(ask(target.address, seconds, lambda: rss_mib.append(target.rss_mib)))
    return Outcome(served, max(rss_mib))


@contextmanager
def _attacker(name: str, target: MeasuredPicker) -> Iterator[None]:
    if name == _NONE:
        yield
        return
    command = [sys.executable, "-m", "lab.attack.attacker", name, target.address, target.metrics_url]
    process = subprocess.Popen(command, cwd=_ROOT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _table(outcomes: Outcomes, fronts: Sequence[str]) -> Table:
    head, rows = _rows(outcomes, fronts)
    table = Table(head[0])
    for column in head[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(outcomes: Outcomes, fronts: Sequence[str], seconds: float) -> str:
    head, rows = _rows(outcomes, fronts)
    return f"{markdown.table(head, rows)}\n\nEach attack lasted {seconds:g} s."


def _rows(outcomes: Outcomes, fronts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the table's head, and a row for each attack."""
    head = ["attack", *(f"{front}: {column}" for front in fronts for column in _COLUMNS)]
    names = dict.fromkeys(name for name, _ in outcomes)
    rows = [[name, *(cell for front in fronts for cell in _cells(outcomes[name, front]))] for name in names]
    return head, rows


def _cells(outcome: Outcome) -> tuple[str, str, str]:
    served = outcome.served
    p99 = f"{served.p99_ms:,.0f}" if served.answered else "-"
    return p99, f"{served.answered}/{served.sent}", f"{outcome.rss_mib:,.0f}"


def _figures(outcomes: Outcomes, fronts: Sequence[str]) -> dict[str, float]:
    """Return the figures. Those of the picker's own front have no prefix."""
    figures: dict[str, float] = {}
    for front in fronts:
        prefix = "" if front == "own" else f"{front}_"
        of_front = {name: outcome for (name, other), outcome in outcomes.items() if other == front}
        baseline = of_front.pop(_NONE)
        figures[f"{prefix}neighbour_p99_ms"] = baseline.served.p99_ms
        for name, outcome in of_front.items():
            slug = re.sub(r"\W+", "_", name.lower())
            if outcome.served.answered:
                figures[f"{prefix}neighbour_p99_added_ms_{slug}"] = outcome.served.p99_ms - baseline.served.p99_ms
            figures[f"{prefix}neighbour_lost_{slug}"] = outcome.served.sent - outcome.served.answered
        figures[f"{prefix}neighbour_lost"] = sum(one.served.sent - one.served.answered for one in of_front.values())
        figures[f"{prefix}rss_peak_mib"] = max(one.rss_mib for one in (baseline, *of_front.values()))
    return figures


if __name__ == "__main__":
    main()
