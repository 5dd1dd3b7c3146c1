"""`python -m trainer`: the training server."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from trainer.config import Config
from trainer.exceptions import StartError
from trainer.server import serve

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


def _option(flag: str, variable: str, default: Any, kind: Any, text: str) -> Callable[[F], F]:
    return click.option(flag, default=default, type=kind, envvar=variable, show_envvar=True, help=text)


_POSITIVE = click.FloatRange(0, min_open=True)
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_COUNT = click.IntRange(1)


@click.command(context_settings=_SETTINGS)
@_option("--host", "TRAINER_HOST", "0.0.0.0", str, "Address to listen on.")
@_option("--port", "TRAINER_PORT", 8000, click.IntRange(0, 65535), "Port to listen on.")
@_option("--model-store", "MODEL_STORE", "/models", str, "Folder that models are published in.")
@_option("--keep-generations", "MODEL_STORE_KEEP", 5, _COUNT, "Generations kept for rollback.")
@_option("--sample-journal", "SAMPLE_JOURNAL", "", str, "Folder to keep samples in over restarts; empty: don't.")
@_option("--retraining-interval-sec", "LATENCY_RETRAINING_INTERVAL_SEC", 1.0, _POSITIVE, "Least time between passes.")
@_option("--min-samples-for-retrain", "LATENCY_MIN_SAMPLES_FOR_RETRAIN", 100, _COUNT, "Fewest samples of a target.")
@_option("--model-type", "LATENCY_MODEL_TYPE", "xgboost", click.Choice(["xgboost"]), "Kind of model.")
@_option(
    "--objective-type", "LATENCY_OBJECTIVE_TYPE", "quantile", click.Choice(["quantile", "mean"]), "What to predict."
)
@_option("--quantile-alpha", "LATENCY_QUANTILE_ALPHA", 0.9, _SHARE, "The quantile to predict.")
@_option(
    "--max-training-data-size-per-bucket",
    "LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET",
    5000,
    _COUNT,
    "Samples kept in each bucket of queue, KV cache and prefix.",
)
@_option("--test-train-ratio", "LATENCY_TEST_TRAIN_RATIO", 0.1, _SHARE, "Share of samples held out.")
@_option("--max-test-data-size", "LATENCY_MAX_TEST_DATA_SIZE", 1000, _COUNT, "Held-out samples kept of each target.")
@_option("--trees", "LATENCY_TREES", 60, click.IntRange(1, 2000), "Trees of a model.")
@_option("--depth", "LATENCY_DEPTH", 4, click.IntRange(1, 16), "Depth of a tree.")
@_option("--learning-rate", "LATENCY_LEARNING_RATE", 0.2, _SHARE, "How far a tree goes towards what is left.")
@_option("--threads", "LATENCY_THREADS", 1, click.IntRange(1, 256), "Threads of a fit.")
@_option("--gate-tolerance", "LATENCY_GATE_TOLERANCE", 0.1, click.FloatRange(0), "Share by which a model may be worse.")
@_option("--max-body-bytes", "TRAINER_MAX_BODY_BYTES", 64 << 20, _COUNT, "Largest request body.")
def main(**options: Any) -> None:
    """Headroom's training server: fits TTFT and TPOT models to what routers observe, and publishes them as ONNX."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        serve(Config(**options))
    except StartError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m trainer")
