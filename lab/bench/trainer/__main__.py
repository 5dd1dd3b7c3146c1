"""Measure a training server: ingestion, answers during a fit, passes, freshness, accuracy and the trend."""

import tempfile
from pathlib import Path

import click
import numpy as np

from lab.bench.figures import report, write
from lab.bench.trainer.fits import cut_short, passes
from lab.bench.trainer.freshness import freshness
from lab.bench.trainer.serving import BATCH_ROWS, during_fits, flush, ingestion, own_server, pass_s, trainer_flags
from lab.bench.trainer.simulated import simulated_samples
from lab.bench.trainer.trend import first_models
from trainer.fitter import Fitter
from trainer.job import Job
from trainer.settings import FitSettings, JobSettings

# An interval between passes that never ends during a measurement.
_NEVER_S = 1e6
_PARTS = ("ingestion", "answers", "passes", "freshness", "accuracy", "trend")


def measure_ingestion(batches: int) -> dict[str, float]:
    """Measure ingestion alone, on a trainer that never fits."""
    with (
        tempfile.TemporaryDirectory() as folder,
        own_server("trainer", *trainer_flags(Path(folder), _NEVER_S)) as (url, process),
    ):
        return ingestion(url, batches) | {"rss_mib": process.memory_info().rss / 2**20}


def measure_answers(seconds: float) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        own_server("trainer", *trainer_flags(Path(folder), 0.05)) as (url, process),
    ):
        ingestion(url, 10)
        found = during_fits(url, seconds)
        both = [process, *process.children()]
        return found | {"rss_with_fitter_mib": sum(part.memory_info().rss for part in both) / 2**20}


def measure_accuracy(requests_per_s: float) -> dict[str, float]:
    """Return errors of the median and coverage of the 0.9-quantile on a replayed trace's samples, in percent."""
    settings = JobSettings(FitSettings(quantiles=(0.5, 0.9)), trainer_id="bench")
    figures: dict[str, float] = {}
    coverages = []
    for learnt in Fitter().learn(Job(simulated_samples(requests_per_s, seed=1), settings)):
        name, scores = learnt.manifest.model, learnt.manifest.holdout_scores
        figures |= {f"{name}_mdape": 100 * scores["mdape"], f"{name}_mape": 100 * scores["mape"]}
        coverages.append(100 * scores[f"coverage_{name}_p90_ms"])
        figures[f"{name}_coverage_q90"] = coverages[-1]
    return figures | {"coverage_q90": float(np.mean(coverages))}


def measure_peer(url: str, batches: int, interval_s: float) -> dict[str, float]:
    """Return ratios of our figures to the peer's, over HTTP and with the same interval.

    A larger ingestion ratio is better, and a smaller refit ratio. Both servers are emptied before each measurement.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        own_server("trainer", *trainer_flags(Path(folder), interval_s)) as (our_url, _),
    ):
        found: dict[str, float] = {}
        try:
            theirs_s = pass_s(url, interval_s)
            found = {"peer_refit_ratio": pass_s(our_url, interval_s) / theirs_s, "peer_refit_s": theirs_s}
        except RuntimeError as error:
            click.echo(f"the ratio of refits was not measured: {error}", err=True)
        rates = {}
        for name, at in (("ours", our_url), ("theirs", url)):
            flush(at)
            rates[name] = ingestion(at, batches)["ingest_rows_per_s"]
    rate = {"peer_ingest_ratio": rates["ours"] / rates["theirs"], "peer_ingest_rows_per_s": rates["theirs"]}
    return found | rate


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(_PARTS), help="Measure only this part; repeatable.")
@click.option("--batches", default=100, type=click.IntRange(2), help=f"Number of bulk requests of {BATCH_ROWS} rows.")
@click.option("--fit-seconds", default=10.0, type=click.FloatRange(1), help="Time to measure answers during fits.")
@click.option("--sizes", default="1000,10000,50000,100000", help="Window sizes of the passes, in rows.")
@click.option("--changes", default=10, type=click.IntRange(1), help="Number of changes of the law, for freshness.")
@click.option("--rows-per-s", default=100.0, type=click.FloatRange(1), help="Samples per second, for freshness.")
@click.option(
    "--interval-sec", default=1.0, type=click.FloatRange(0.05), help="Shortest time between passes, for freshness."
)
@click.option(
    "--sync-sec", default=1.0, type=click.FloatRange(0.05), help="The predictor's poll interval, for freshness."
)
@click.option("--requests-per-s", default=4.0, type=click.FloatRange(0.1), help="Request rate of the replayed trace.")
@click.option("--peer", default="", help="URL of another training server with the same API, measured in the same run.")
@click.option("--peer-interval-sec", default=1.0, type=click.FloatRange(0.05), help="The peer's retraining interval.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(
    only: tuple[str, ...],
    batches: int,
    fit_seconds: float,
    sizes: str,
    changes: int,
    rows_per_s: float,
    interval_sec: float,
    sync_sec: float,
    requests_per_s: float,
    peer: str,
    peer_interval_sec: float,
    json_file: Path | None,
) -> None:
    """Measure this project's trainer on this machine, and print the figures and the ratios to --peer."""
    parts, wanted = only or _PARTS, [int(size) for size in sizes.split(",")]
    figures: dict[str, float] = {}
    if "ingestion" in parts:
        figures |= measure_ingestion(batches)
    if "answers" in parts:
        figures |= measure_answers(fit_seconds)
    if "passes" in parts:
        figures |= passes(wanted) | cut_short(max(wanted))
        if "pass_10000_s" in figures:
            figures["refit_10k_s"] = figures["pass_10000_s"]
    if "freshness" in parts:
        with tempfile.TemporaryDirectory() as folder:
            waits = freshness(Path(folder), rows_per_s, interval_sec, sync_sec, changes)
        figures |= {"freshness_p50_s": float(np.median(waits)), "freshness_max_s": max(waits)}
    if "accuracy" in parts:
        figures |= measure_accuracy(requests_per_s)
    if "trend" in parts:
        figures |= first_models(requests_per_s)
    if peer:
        figures |= measure_peer(peer.rstrip("/"), batches, peer_interval_sec)
    report(figures)
    if json_file:
        options = click.get_current_context().params
        settings = {name: value for name, value in options.items() if name not in ("json_file", "peer")}
        write(json_file, figures, ("onnxmltools", "onnxruntime", "numpy", "msgspec"), settings | {"peer": bool(peer)})


if __name__ == "__main__":
    main()
