"""`python -m trainer`: the flags of the training server."""

import logging
import os
from typing import Any

import click

from model_store import KEEP_GENERATIONS, StoreError
from serving.exceptions import StartError
from serving.options import option
from serving.unused_variables import describe_unused
from trainer.config import Config
from trainer.environment import UNUSED
from trainer.server import serve
from trainer.settings import MODEL_TYPES

_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


class _Quantiles(click.ParamType[tuple[float, ...]]):
    """Comma-separated numbers between 0 and 1."""

    name = "quantiles"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return tuple(_SHARE.convert(part, param, ctx) for part in parts)


_POSITIVE = click.FloatRange(0, min_open=True)
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_COUNT = click.IntRange(1)


@click.command(context_settings=_SETTINGS)
@option("--host", "TRAINER_HOST", "0.0.0.0", str, "Address to listen on.")
@option("--port", "TRAINER_PORT", 8000, click.IntRange(0, 65535), "Port to listen on.")
@option(
    "--cert-path",
    "TRAINER_CERT_PATH",
    "",
    str,
    "Folder with tls.crt and tls.key, reloaded when they change: serve over TLS. Empty: plain HTTP.",
)
@option(
    "--token-file",
    "TRAINER_TOKEN_FILE",
    "",
    str,
    "File of bearer tokens, one a line, re-read when it changes: callers must send one. Empty: none is asked for.",
)
@option("--model-store", "MODEL_STORE", "/models", str, "Folder, or s3://bucket/prefix, to publish models in.")
@option(
    "--signing-key-file",
    "MODEL_SIGNING_KEY_FILE",
    "",
    str,
    "PEM file of an Ed25519 key that signs each generation. Empty: generations are not signed.",
)
@option(
    "--verify-key-file",
    "MODEL_VERIFY_KEY_FILE",
    "",
    str,
    "PEM file of public keys. Only generations that one of them or the signing key has signed are read. "
    "Empty, without a signing key: all are.",
)
@option(
    "--keep-generations", "MODEL_STORE_KEEP", KEEP_GENERATIONS, _COUNT, "Number of generations to keep for rollback."
)
@option("--sample-journal", "SAMPLE_JOURNAL", "", str, "Folder that keeps samples over restarts. Empty: keep none.")
@option(
    "--retraining-interval-sec",
    ["LATENCY_RETRAINING_INTERVAL_SEC", "retrainingIntervalSec"],
    1.0,
    _POSITIVE,
    "Minimum time between passes, in seconds. A fit that would take longer extends the previous model instead.",
)
@option(
    "--min-samples-for-retrain",
    ["LATENCY_MIN_SAMPLES_FOR_RETRAIN", "minSamplesForRetrain"],
    100,
    _COUNT,
    "Minimum number of samples to fit a target.",
)
@option(
    "--min-samples-for-retrain-fresh",
    "LATENCY_MIN_SAMPLES_FOR_RETRAIN_FRESH",
    None,
    _COUNT,
    "The same minimum while the store is empty; default: the value of --min-samples-for-retrain.",
)
@option(
    "--model-type", ["LATENCY_MODEL_TYPE", "modelType"], "xgboost", click.Choice(MODEL_TYPES), "Type of model to fit."
)
@option(
    "--objective-type",
    "LATENCY_OBJECTIVE_TYPE",
    "quantile",
    click.Choice(["quantile", "mean"]),
    "Statistic to predict.",
)
@option("--quantile-alpha", "LATENCY_QUANTILE_ALPHA", 0.9, _SHARE, "Quantile to predict.")
@option(
    "--extra-quantiles",
    "LATENCY_EXTRA_QUANTILES",
    "0.5",
    _Quantiles(),
    "Further quantiles to predict, comma-separated. Each adds an output: 0.5 adds ttft_p50_ms, which the picker uses.",
)
@option(
    "--max-training-data-size-per-bucket",
    "LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET",
    5000,
    _COUNT,
    "Training samples to keep per bucket of queue length, KV cache use and prefix score.",
)
@option("--test-train-ratio", "LATENCY_TEST_TRAIN_RATIO", 0.1, _SHARE, "Share of samples to hold out.")
@option("--max-test-data-size", "LATENCY_MAX_TEST_DATA_SIZE", 1000, _COUNT, "Held-out samples to keep per target.")
@option(
    "--sample-weighting-for-prefix-cache",
    "LATENCY_SAMPLE_WEIGHTING_FOR_PREFIX_CACHE",
    False,
    bool,
    "Give each quarter of the prefix scores the same weight in the TTFT model.",
)
@option("--trees", "LATENCY_TREES", 60, click.IntRange(1, 2000), "Trees per model.")
@option("--depth", "LATENCY_DEPTH", 4, click.IntRange(1, 16), "Maximum depth of a tree.")
@option("--learning-rate", "LATENCY_LEARNING_RATE", 0.2, _SHARE, "Share of the remaining error that a tree corrects.")
@option("--threads", "LATENCY_THREADS", 1, click.IntRange(1, 256), "Threads per fit.")
@option(
    "--gate-tolerance",
    "LATENCY_GATE_TOLERANCE",
    0.1,
    click.FloatRange(0),
    "Share by which a new model's loss may exceed that of the served model.",
)
@option(
    "--drift-tolerance",
    "LATENCY_DRIFT_TOLERANCE",
    0.2,
    click.FloatRange(0),
    "Discount older samples when latencies change at once by more than this share.",
)
@option(
    "--canary-rows",
    "LATENCY_CANARY_ROWS",
    100,
    click.IntRange(0),
    "Held-out samples after a publication on which a model is compared with the one before. If it is worse, the one "
    "before is published again. 0: never.",
)
@option(
    "--allowed-outliers",
    "LATENCY_ALLOWED_OUTLIERS",
    1.0,
    _POSITIVE,
    "Multiple of the usual share of outlying rows that a fit believes. Raise it if latencies vary for reasons that no "
    "feature shows.",
)
@option(
    "--max-source-share",
    "LATENCY_MAX_SOURCE_SHARE",
    0.5,
    click.FloatRange(0, 1, min_open=True),
    "Largest share of a minute's rows that one sender may have, once three or more senders send. 1: no limit.",
)
@option("--max-body-bytes", "TRAINER_MAX_BODY_BYTES", 64 << 20, _COUNT, "Largest accepted request body, in bytes.")
@option("--log-level", "LOG_LEVEL", "info", click.Choice(["debug", "info", "warning", "error"]), "Lowest level to log.")
def main(**options: Any) -> None:
    """Headroom's training server: fits models to the TTFT and TPOT that pickers observe, and publishes them as ONNX."""
    level = options["log_level"].upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for line in describe_unused(UNUSED, os.environ):
        logging.warning(line)
    try:
        serve(Config(**options))
    except (StartError, StoreError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m trainer")
