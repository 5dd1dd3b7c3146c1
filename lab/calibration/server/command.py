"""`headroom calibrate`: measure a running server, and write the file that the simulator takes."""

import asyncio
import random
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from headroom.servers.api_key import read_api_key
from lab.bench.figures import report, write
from lab.calibration.exceptions import MeasureError
from lab.calibration.server import measure
from lab.calibration.server.client import HttpServer
from lab.calibration.server.guard import Guard
from simulator.calibration_file import OPTIONAL, Calibration, format_calibration
from simulator.hardware import measured_hardware


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("url")
@click.option(
    "--out",
    default="calibration.csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for `python -m simulator --hardware`; its name ends in .csv.",
)
@click.option("--model", default="", help="Model to ask for. Empty: the first one that the server lists.")
@click.option("--gpu", default="not named", help="The server's hardware in words, for the file.")
@click.option("--max-num-seqs", type=click.IntRange(1), help="As the server was started. Without: found by trying.")
@click.option(
    "--max-num-batched-tokens", type=click.IntRange(1), help="As the server was started. Without: found by trying."
)
@click.option("--most-batch", default=256, type=click.IntRange(2), help="Most sequences to measure at once.")
@click.option("--minutes", default=8.0, type=click.FloatRange(0.1, 60), help="Longest time to measure.")
@click.option(
    "--max-noise", default=10.0, type=click.FloatRange(0.1), help="Write nothing that is less sure, in percent."
)
@click.option(
    "--patience", default=120.0, type=click.FloatRange(0), help="Longest time to wait for other requests, in s."
)
@click.option("--timeout", default=60.0, type=click.FloatRange(1), help="Longest silence of the server, in s.")
@click.option(
    "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with the API key."
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates to trust, in PEM format.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def calibrate(
    url: str,
    out: Path,
    model: str,
    gpu: str,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    most_batch: int,
    minutes: float,
    max_noise: float,
    patience: float,
    timeout: float,
    api_key_file: Path | None,
    ca_file: Path | None,
    json_file: Path | None,
) -> None:
    """Measure the vLLM server at URL, and write a calibration for the simulator.

    The server may have some traffic: whatever others disturb is measured again, and while others are served, nothing
    is sent. It is asked for answers to random tokens for some minutes: one request at a time, in batches, and as
    traffic of up to somewhat more than it keeps up with.
    """
    if out.suffix != ".csv":
        raise click.UsageError("--out must end in .csv, since the simulator knows files by that")
    given = measure.Given(max_num_seqs, max_num_batched_tokens, most_batch, minutes * 60, max_noise / 100)
    server = HttpServer(url, model, api_key=read_api_key(api_key_file), ca_file=ca_file, read_s=timeout)
    try:
        calibration, figures = asyncio.run(measure_server(server, given, gpu, patience))
    except MeasureError as error:
        raise click.ClickException(str(error)) from error
    out.write_text(format_calibration(calibration))
    report(figures)
    click.echo(f"{out} is written: python -m simulator --hardware {out}")
    if json_file:
        write(json_file, figures, ("numpy", "aiohttp"), {"url": url, "model": server.model, "gpu": gpu})


async def measure_server(
    server: HttpServer, given: measure.Given, gpu: str, patience_s: float
) -> tuple[Calibration, dict[str, float]]:
    """Measure a server, with a progress bar on stderr. Return its calibration, and figures for a report."""
    began_s = time.monotonic()
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    async with server:
        card = await server.choose_model()
        length = card.get("max_model_len")
        if not isinstance(length, int):
            raise MeasureError(f"{server.url}/v1/models has no max_model_len: only servers like vLLM can be measured")
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("finding limits", total=1.0)
            guard = Guard(server, lambda line: console.print(line, highlight=False), patience_s)
            rng = random.Random()
            found = await measure.find_limits(guard, server, length, given, rng)
            for note in found.notes:
                console.print(note, highlight=False)
            progress = measure.Progress(lambda name, done: bar.update(task, description=name, completed=done))
            source = f"measured by headroom calibrate from a running server, vLLM {await server.version()}"
            texts = {"gpu": gpu, "model": server.model, "source": source, "licence": "none"}
            calibration, figures = await measure.calibrate(guard, found, given, rng, progress, began_s, texts)
            bar.update(task, description="measured", completed=1.0)
    return calibration, {
        "disturbed": guard.disturbed,
        "waited_s": guard.waited_s,
        "took_s": time.monotonic() - began_s,
        **figures,
        **_figures(calibration),
    }


def _figures(calibration: Calibration) -> dict[str, float]:
    """Return the limits, and the times of some steps."""
    cost = measured_hardware("measured", calibration).cost
    budget = calibration.limits["max_num_batched_tokens"]
    figures: dict[str, float] = dict(calibration.limits)
    figures |= {name: getattr(calibration, name) for name in OPTIONAL[:-1]}
    figures[f"prompt_{budget}_ms"] = cost.dense_ms(budget) + cost.prefill_attention_ms(budget, 0)
    for batch in (1, 8, 64):
        if batch <= calibration.limits["max_num_seqs"]:
            figures[f"decode_{batch}x1024_ms"] = cost.dense_ms(batch) + cost.decode_attention_ms(batch, batch * 1024)
    return figures
