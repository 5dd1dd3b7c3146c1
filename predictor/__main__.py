"""`python -m predictor`: the prediction server."""

import logging
from typing import Any

import click

from predictor.config import Config
from predictor.exceptions import StartError
from predictor.server import serve

_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.command(context_settings=_SETTINGS)
@click.option("--host", default="0.0.0.0", envvar="PREDICT_HOST", show_envvar=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8001,
    type=click.IntRange(0, 65535),
    envvar="PREDICT_PORT",
    show_envvar=True,
    help="Port to listen on.",
)
@click.option(
    "--model-store", default="/models", envvar="MODEL_STORE", show_envvar=True, help="Folder that models come from."
)
@click.option(
    "--model-sync-interval-sec",
    default=10.0,
    type=click.FloatRange(0, min_open=True),
    envvar="MODEL_SYNC_INTERVAL_SEC",
    show_envvar=True,
    help="Pause between looks at the model store.",
)
@click.option(
    "--training-server-url",
    default="http://localhost:8000",
    envvar="TRAINING_SERVER_URL",
    show_envvar=True,
    help="Reported by /status; models come from the store.",
)
@click.option(
    "--model-type",
    default="xgboost",
    envvar="LATENCY_MODEL_TYPE",
    show_envvar=True,
    help="Reported until a model is loaded, whose manifest says what it is.",
)
@click.option(
    "--max-body-bytes",
    default=16 << 20,
    type=click.IntRange(1),
    envvar="PREDICT_MAX_BODY_BYTES",
    show_envvar=True,
    help="Largest request body.",
)
@click.option(
    "--max-rows",
    default=10_000,
    type=click.IntRange(1),
    envvar="PREDICT_MAX_ROWS",
    show_envvar=True,
    help="Most rows in one request.",
)
def main(**options: Any) -> None:
    """Headroom's prediction server: answers with the newest models of a model store, by onnxruntime."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        serve(Config(**options))
    except StartError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m predictor")
