"""Options that the loop's commands share: servers, their speed, and policies."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from lab.loop.policies import ENVOYS_OWN, PICKERS
from simulator.exceptions import CalibrationError
from simulator.hardware import PRESETS, hardware, shipped_names

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
HARDWARE = ("h100-llama-3.1-8b", "l40s-llama-3.1-8b")
SPEED_FACTOR = 0.5


def _check_hardware(context: click.Context, parameter: click.Parameter, names: Sequence[str]) -> Sequence[str]:
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
    callback=_check_hardware,
    metavar="NAME",
    help=f"What the servers imitate, dealt out in turn; repeatable. {', '.join([*PRESETS, *shipped_names()])}, "
    "or a calibration of your own.",
)
speed_option: Decorator = click.option(
    "--speed-factor",
    default=SPEED_FACTOR,
    type=click.FloatRange(0.01, 1000),
    help="Time lapse: 0.5 has servers take twice the time of their hardware, and objectives with them. "
    "This machine has to send every token.",
)


def policy_option(usual: Sequence[str]) -> Decorator:
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        default=usual,
        type=click.Choice((*ENVOYS_OWN, *PICKERS)),
        callback=_drop_repeats,
        help=f"What to compare, in this order; repeatable. Envoy itself does {', '.join(ENVOYS_OWN)}.",
    )


def share_replicas(names: Sequence[str], replicas: int) -> tuple[str, ...]:
    """The hardware of each replica: equal shares, in the order of the names; the first ones take what is left over."""
    counts: dict[int, int] = {}
    for index in range(replicas):
        counts[index % len(names)] = counts.get(index % len(names), 0) + 1
    return tuple(name for index, name in enumerate(names) for _ in range(counts.get(index, 0)))


def _drop_repeats(context: click.Context, parameter: click.Parameter, names: Sequence[Any]) -> Sequence[Any]:
    return tuple(dict.fromkeys(names))
