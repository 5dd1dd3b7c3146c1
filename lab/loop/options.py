"""Command-line options for the loop: servers, their speed, and policies."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from lab.loop.policies import ENVOY_POLICIES, PICKER_POLICIES
from simulator.exceptions import CalibrationError
from simulator.hardware import PRESETS, hardware, shipped_names

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
HARDWARE = ("h100-llama-3.1-8b", "l40s-llama-3.1-8b")
SPEED_FACTOR = 0.5


def check_hardware(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> Sequence[str]:
    """Refuse an option's or argument's names of which one is no hardware."""
    for name in names:
        try:
            hardware(name)
        except CalibrationError as error:
            raise click.BadParameter(str(error)) from error
    return names


hardware_option: Decorator = click.option(
    "--hardware",
    multiple=True,
    default=HARDWARE,
    callback=check_hardware,
    metavar="NAME",
    help=f"Hardware that the servers imitate, in equal shares; repeatable. {', '.join([*PRESETS, *shipped_names()])}, "
    "or the path of a calibration (.csv).",
)
speed_option: Decorator = click.option(
    "--speed-factor",
    default=SPEED_FACTOR,
    type=click.FloatRange(0.01, 1000),
    help="Speed of time: with 0.5, servers take twice their hardware's time, and objectives are doubled. "
    "A slow machine needs a low factor, because it sends every token.",
)


def policy_option(usual: Sequence[str]) -> Decorator:
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        default=usual,
        type=click.Choice((*ENVOY_POLICIES, *PICKER_POLICIES)),
        callback=_drop_repeats,
        help=f"Policy to compare, in this order; repeatable. Envoy itself implements {', '.join(ENVOY_POLICIES)}.",
    )


def share_replicas(names: Sequence[str], replicas: int) -> tuple[str, ...]:
    """Return the hardware of each replica: equal shares, in the order of the names. The first names get the rest."""
    counts: dict[int, int] = {}
    for index in range(replicas):
        counts[index % len(names)] = counts.get(index % len(names), 0) + 1
    return tuple(name for index, name in enumerate(names) for _ in range(counts.get(index, 0)))


def _drop_repeats(context: click.Context, parameter: click.Parameter, names: Sequence[Any]) -> Sequence[Any]:
    return tuple(dict.fromkeys(names))
