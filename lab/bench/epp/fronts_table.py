"""The comparison of the two gRPC fronts as Markdown: a table, the verdict, and how it was measured."""

from collections.abc import Mapping
from typing import Any

from lab.bench.block import Block
from lab.bench.epp.bench import Figures
from lab.bench.epp.fronts import QUANTITIES, Quantity

BLOCK = Block("scripts/bench_epp.py --only fronts --out")
_HEAD = ("| | own | grpcio | own / grpcio | better |", "|---|---|---|---|---|")
# The least saving that makes up for 1,450 lines of code to maintain; a choice, not a measurement.
_NEEDED_SAVING = 0.25


def text_of(figures: Figures, settings: Mapping[str, Any]) -> str:
    """Return the table and the sentences below it. Leave out quantities that were not measured."""
    rows = [row for quantity in QUANTITIES if (row := _row(quantity, figures))]
    parts = ["\n".join([*_HEAD, *rows]), _verdict(figures), _measured(settings)]
    return "\n\n".join(part for part in parts if part)


def _row(quantity: Quantity, figures: Figures) -> str:
    ratio = f"front_{quantity.ratio}"
    names = (f"front_own_{quantity.figure}", f"front_grpcio_{quantity.figure}", ratio)
    if not figures.keys() >= set(names):
        return ""
    own, grpcio, both = (_number(figures[name]) for name in names)
    if f"{ratio}_min" in figures:
        both += f" ({_number(figures[f'{ratio}_min'])} to {_number(figures[f'{ratio}_max'])})"
    better = "higher" if quantity.higher_is_better else "lower"
    return f"| {quantity.title} (`{ratio}`) | {own} | {grpcio} | {both} | {better} |"


def _verdict(figures: Figures) -> str:
    cpu, pick = (figures.get(name) for name in ("front_cpu_ratio_default", "front_pick_c32_p50_ratio"))
    if cpu is None or pick is None:
        return ""
    saves = 1 - min(cpu, pick) >= _NEEDED_SAVING
    return (
        f"The own front stays the default only if it saves {_NEEDED_SAVING:.0%} of the CPU of a `default` request\n"
        f"or of the time to its pick at 32 at once. It saves {1 - cpu:.0%} and {1 - pick:.0%}: "
        + ("it stays the default." if saves else "grpcio has to become the default.")
    )


def _measured(settings: Mapping[str, Any]) -> str:
    load = settings["load_average"]
    return (
        f"Ratios are medians of {settings['rounds']} rounds (least to greatest), each of {settings['seconds']:g} s a "
        f"case, with {settings['endpoints']}\nendpoints. The machine's load average was {load['before']:.1f} before "
        f"and {load['after']:.1f} after."
    )


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
