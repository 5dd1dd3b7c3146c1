"""The command `python -m simulator.load`: replay a trace against a URL, and print the latencies of its clients."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from simulator.exceptions import TraceError
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.summary import COLUMNS, format_cells, summarise
from simulator.trace import cap_lengths, load_trace, window
from simulator.workload import SharedPrefix, plan

_SETTINGS = {
    "show_default": True,
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": "SIMULATOR_LOAD",
    "max_content_width": 120,
}
_POSITIVE = click.FloatRange(0, min_open=True, max=1e6)


def _header(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    for value in values:
        if ":" not in value:
            raise click.BadParameter(f"expected NAME:VALUE, got {value!r}")
    return {name.strip(): text.strip() for name, _, text in (value.partition(":") for value in values)}


@click.command(context_settings=_SETTINGS)
@click.argument("url")
@click.option("--rate", default=2.0, type=_POSITIVE, show_envvar=True, help="Mean requests per second.")
@click.option("--seconds", default=30.0, type=_POSITIVE, show_envvar=True, help="How long to send requests.")
@click.option("--seed", default=0, type=int, show_envvar=True, help="Random seed for objectives and texts.")
@click.option("--salt", default="", show_envvar=True, help="A new salt gives new texts, so no prefix is cached yet.")
@click.option("--model", default="simulated-model", show_envvar=True, help="Name of the model to ask for.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Trace to replay, CSV or JSON lines; default: the shipped sample of Azure's.",
)
@click.option(
    "--first", default=0, type=click.IntRange(0), show_envvar=True, help="Index of the trace's first request to send."
)
@click.option(
    "--max-prompt-tokens", default=4000, type=click.IntRange(1), show_envvar=True, help="Longer prompts are cut."
)
@click.option(
    "--max-output-tokens", default=400, type=click.IntRange(1), show_envvar=True, help="Longer answers are cut."
)
@click.option(
    "--shared-prefix-share",
    default=0.0,
    type=click.FloatRange(0, 1),
    show_envvar=True,
    help="Share of requests that begin with one common prefix.",
)
@click.option(
    "--shared-prefix-tokens",
    default=512,
    type=click.IntRange(0),
    show_envvar=True,
    help="Length of the common prefix.",
)
@click.option("--header", multiple=True, callback=_header, help="Additional header, NAME:VALUE; may be repeated.")
@click.option("--timeout-s", default=300.0, type=_POSITIVE, show_envvar=True, help="Timeout of one request.")
def main(
    url: str,
    trace: Path | None,
    first: int,
    rate: float,
    seconds: float,
    max_prompt_tokens: int,
    max_output_tokens: int,
    shared_prefix_share: float,
    shared_prefix_tokens: int,
    header: Mapping[str, str],
    model: str,
    seed: int,
    salt: str,
    timeout_s: float,
) -> None:
    """Replay a request trace against URL (http://host:port) and print the latencies of its clients.

    The exit status is 1 when no request was answered.
    """
    try:
        requests = cap_lengths(window(load_trace(trace), first, rate, seconds), max_prompt_tokens, max_output_tokens)
    except TraceError as error:
        raise click.ClickException(str(error)) from error
    planned = plan(requests, seed=seed, salt=salt, shared=SharedPrefix(shared_prefix_share, shared_prefix_tokens))
    replaying = replay(url.rstrip("/"), planned, model=model, headers=header, timeout_s=timeout_s)
    outcomes = asyncio.run(replaying)
    click.echo(table(outcomes, seconds))
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        click.echo(f"first error: {errors[0]}", err=True)
    if len(errors) == len(outcomes):
        sys.exit(1)


def table(outcomes: Sequence[Outcome], span_s: float) -> str:
    """Return a table with one line for all requests, and one for each server that names itself."""
    names = sorted({outcome.served_by for outcome in outcomes if outcome.served_by})
    served = [(name, [outcome for outcome in outcomes if outcome.served_by == name]) for name in names]
    parts = [("all", outcomes), *served]
    rows = [("", *COLUMNS), *((name, *format_cells(summarise(part, span_s))) for name, part in parts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


if __name__ == "__main__":
    main(prog_name="python -m simulator.load")
