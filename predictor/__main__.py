"""`python -m predictor`: the flags of the prediction server."""

import logging
import os
from typing import Any

import click

from model_store import StoreError
from predictor.config import Config
from predictor.environment import UNUSED
from predictor.exceptions import InputError
from predictor.loading import LIMITS
from predictor.repository import CONTROL_MODES, EXPLICIT, POLL
from predictor.server import serve
from predictor.versions import VersionPolicies, parse_policies
from predictor.workers import supervise
from serving.command import ServerCommand, own_arguments
from serving.exceptions import StartError
from serving.options import option
from serving.unused_variables import describe_unused
from serving.workers import own_place

logger = logging.getLogger("headroom.predictor")
# The default gRPC port is the HTTP port plus this. A pod's replicas use HTTP ports from 8001 upwards, and the endpoint
# picker uses 9002 and 9003.
_GRPC_PORT_OFFSET = 100
_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}
_PORT = click.IntRange(0, 65535)
_COUNT = click.IntRange(1)


def _version_policy(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> VersionPolicies:
    try:
        return parse_policies(texts)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=ServerCommand, context_settings=_SETTINGS)
@option("--host", "PREDICT_HOST", "0.0.0.0", str, "Address to listen on.")
@option("--port", "PREDICT_PORT", 8001, _PORT, "Port to listen on.")
@option(
    "--grpc-port",
    "PREDICT_GRPC_PORT",
    None,
    _PORT,
    "Port of the Open Inference Protocol over gRPC; 0 disables gRPC.",
    show_default="the HTTP port + 100",
)
@option(
    "--cert-path",
    "PREDICT_CERT_PATH",
    "",
    str,
    "Folder with tls.crt and tls.key, reloaded when they change: serve HTTP and gRPC over TLS. Empty: no TLS.",
)
@option(
    "--token-file",
    "PREDICT_TOKEN_FILE",
    "",
    str,
    "File of bearer tokens, one a line, re-read when it changes: callers must send one. Empty: none is asked for.",
)
@option(
    "--workers",
    "PREDICT_WORKERS",
    1,
    click.IntRange(1, 64),
    "Number of processes that share the ports; each polls the store by itself.",
)
@option("--model-store", "MODEL_STORE", "/models", str, "Folder, or s3://bucket/prefix, to read models from.")
@option(
    "--verify-key-file",
    "MODEL_VERIFY_KEY_FILE",
    "",
    str,
    "PEM file of one or several public keys. Only generations that one of them has signed are loaded. Empty: all are.",
)
@option(
    "--model-sync-interval-sec",
    "MODEL_SYNC_INTERVAL_SEC",
    10.0,
    click.FloatRange(0, min_open=True),
    "Seconds between polls of the model store.",
)
@option(
    "--model-control-mode",
    "MODEL_CONTROL_MODE",
    POLL,
    click.Choice(CONTROL_MODES),
    "poll: follow the store. explicit: load models on request. none: load all models once, at start.",
)
@click.option(
    "--load-model",
    multiple=True,
    metavar="NAME",
    help="Model to load at start in mode explicit, or * for all. Repeatable.",
)
@option(
    "--version-policy",
    "MODEL_VERSION_POLICY",
    (),
    str,
    "Versions to serve. Default: the one in force, or the policy in a model's config.pbtxt. Repeatable.",
    multiple=True,
    callback=_version_policy,
    metavar="[MODEL=]latest:N|all|specific:N,M",
)
@option(
    "--max-model-bytes", "PREDICT_MAX_MODEL_BYTES", LIMITS.model_bytes, _COUNT, "Largest model file to load, in bytes."
)
@option(
    "--try-models",
    "PREDICT_TRY_MODELS",
    True,
    bool,
    "Load and run each new model in a process of its own first, with limits of memory and time.",
)
@option(
    "--training-server-url",
    "TRAINING_SERVER_URL",
    "http://localhost:8000",
    str,
    "URL that /status reports. It has no other effect: models come from the store.",
)
@option(
    "--model-type",
    "LATENCY_MODEL_TYPE",
    "xgboost",
    str,
    "Model type to report until a model is loaded; then its manifest tells the type.",
)
@option("--max-body-bytes", "PREDICT_MAX_BODY_BYTES", 16 << 20, _COUNT, "Largest accepted request body, in bytes.")
@option("--max-rows", "PREDICT_MAX_ROWS", LIMITS.rows, _COUNT, "Largest accepted number of rows in a request.")
def main(workers: int, **options: Any) -> None:
    """Headroom's prediction server: predicts with the newest models of a model store, by onnxruntime."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for line in describe_unused(UNUSED, os.environ):
        logger.warning(line)
    try:
        if workers > 1 and not own_place("predictor"):
            _check_mode(options["model_control_mode"])
            supervise(workers, options["host"], options["port"], own_arguments())
            return
        serve(Config(**{**options, "grpc_port": _grpc_port(options["grpc_port"], options["port"])}))
    except (StartError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _check_mode(mode: str) -> None:
    if mode == EXPLICIT:
        raise StartError(
            "--workers can't be combined with --model-control-mode explicit: a load would reach only one worker"
        )


def _grpc_port(given: int | None, http_port: int) -> int | None:
    """Return the gRPC port, or None to disable gRPC. If HTTP takes a free port (0), so does gRPC."""
    if given == 0:
        return None
    return given or (http_port + _GRPC_PORT_OFFSET if http_port else 0)


if __name__ == "__main__":
    main(prog_name="python -m predictor")
