"""`python -m simulator`: one simulated vLLM server."""

import dataclasses
import logging
from typing import Any

import click

from serving.exceptions import StartError
from simulator.config import Config
from simulator.exceptions import CalibrationError
from simulator.hardware import PRESETS, Hardware, hardware, shipped_names
from simulator.server import serve
from simulator.step_cost import LinearCost

_SETTINGS = {
    "show_default": True,
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": "SIMULATOR",
    "max_content_width": 120,
}
_COST = click.FloatRange(0, max=1e6)
_COUNT = click.IntRange(1)


def _hardware(context: click.Context, parameter: click.Parameter, name: str) -> Hardware:
    try:
        return hardware(name)
    except CalibrationError as error:
        raise click.BadParameter(str(error)) from error


def _importable(context: click.Context, parameter: click.Parameter, url: str) -> str:
    """Check that spans can be made, before the server starts."""
    if url:
        try:
            import simulator.tracing  # noqa: F401
        except ImportError as error:
            raise click.BadParameter(f"install Headroom with its extra tracing ({error})") from error
    return url


@click.command(context_settings=_SETTINGS)
@click.option("--host", default="127.0.0.1", show_envvar=True, help="Address to listen on.")
@click.option("--port", default=8100, type=click.IntRange(0, 65535), show_envvar=True, help="Port to listen on.")
@click.option("--name", default="", show_envvar=True, help="Server name in responses; default: HARDWARE-PORT.")
@click.option("--model", default="simulated-model", show_envvar=True, help="Name of the served model.")
@click.option(
    "--hardware",
    "imitated",
    envvar="SIMULATOR_HARDWARE",
    default="fast",
    metavar="NAME",
    callback=_hardware,
    show_envvar=True,
    help=f"Hardware to imitate: {', '.join([*PRESETS, *shipped_names()])}, or the path of a calibration (.csv).",
)
@click.option(
    "--speed-factor",
    default=1.0,
    type=click.FloatRange(0.01, 1000),
    show_envvar=True,
    help="Speed of time: with 2, every step takes half as long.",
)
@click.option("--base-ms", type=_COST, show_envvar=True, help="Fixed cost of a step.")
@click.option("--prefill-ms-per-token", type=_COST, show_envvar=True, help="Cost of a prompt token.")
@click.option(
    "--prefill-ms-per-mega-pair", type=_COST, show_envvar=True, help="Cost of a million pairs in prompt attention."
)
@click.option("--decode-ms-per-sequence", type=_COST, show_envvar=True, help="Cost of a decoding sequence.")
@click.option("--decode-ms-per-kilotoken", type=_COST, show_envvar=True, help="Cost of reading 1,000 KV tokens.")
@click.option("--num-blocks", type=_COUNT, show_envvar=True, help="Blocks in the KV cache.")
@click.option("--block-tokens", type=_COUNT, show_envvar=True, help="Tokens per block.")
@click.option("--max-num-seqs", type=_COUNT, show_envvar=True, help="Most sequences in the running batch.")
@click.option("--max-num-batched-tokens", type=_COUNT, show_envvar=True, help="Most tokens per step.")
@click.option("--max-model-len", type=_COUNT, show_envvar=True, help="Most tokens of a request, prompt and output.")
@click.option(
    "--scheduling-policy",
    type=click.Choice(["fcfs", "priority"]),
    show_envvar=True,
    help="Order of waiting requests: by arrival, or by the requests' priority.",
)
@click.option(
    "--otlp-traces-endpoint",
    default="",
    metavar="URL",
    callback=_importable,
    show_envvar=True,
    help="Send a span of each request there, by OTLP over HTTP: http://HOST:4318/v1/traces. Empty: send none.",
)
def main(imitated: Hardware, **options: Any) -> None:
    """Serve answers like vLLM's, and take as long as a continuous-batching engine would.

    An option without a default overrides the hardware's own value (see `simulator/hardware.py`). The options for costs
    work with fast and slow only: the other hardware has a table of measured costs.
    """
    costs, limits = _pop_given(options, LinearCost), _pop_given(options, Hardware)
    cost = imitated.cost
    if costs and not isinstance(cost, LinearCost):
        flag = f"--{min(costs).replace('_', '-')}"
        raise click.UsageError(
            f"{flag} works only with the hardware {' and '.join(PRESETS)}; {imitated.name} has a table of costs"
        )
    if isinstance(cost, LinearCost):
        cost = dataclasses.replace(cost, **costs)
    options["name"] = options["name"] or f"{imitated.name}-{options['port']}"
    config = Config(hardware=dataclasses.replace(imitated, cost=cost, **limits), **options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        serve(config)
    except StartError as error:
        raise click.ClickException(str(error)) from error


def _pop_given(options: dict[str, Any], kind: type[LinearCost] | type[Hardware]) -> dict[str, Any]:
    """Remove from `options` those that override a field of `kind`, and return those that were given."""
    names = {field.name for field in dataclasses.fields(kind)} - {"name", "cost"}
    return {name: value for name in sorted(names & options.keys()) if (value := options.pop(name)) is not None}


if __name__ == "__main__":
    main(prog_name="python -m simulator")
