"""`python -m predictor`: the prediction server."""

import logging
import os
import sys
from typing import Any

import click

from predictor.config import Config
from predictor.environment import unused
from predictor.exceptions import InputError, StartError
from predictor.loading import LIMITS
from predictor.repository import CONTROL_MODES, EXPLICIT, POLL
from predictor.server import serve
from predictor.versions import VersionPolicies, parse_policies
from predictor.workers import own_place, supervise

logger = logging.getLogger("headroom.predictor")
# The replicas of a pod count their HTTP ports up from 8001; 9002 and 9003 are the endpoint picker's.
_GRPC_DISTANCE = 100
_SETTINGS = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


def _version_policy(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> VersionPolicies:
    try:
        return parse_policies(texts)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


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
    "--grpc-port",
    type=click.IntRange(0, 65535),
    envvar="PREDICT_GRPC_PORT",
    show_envvar=True,
    show_default="the HTTP port + 100",
    help="Port of the Open Inference Protocol over gRPC; 0 does not serve it.",
)
@click.option(
    "--cert-path",
    default="",
    envvar="PREDICT_CERT_PATH",
    show_envvar=True,
    help="Folder of tls.crt and tls.key, followed: serve HTTP and gRPC over TLS. Empty: neither.",
)
@click.option(
    "--workers",
    default=1,
    type=click.IntRange(1, 64),
    envvar="PREDICT_WORKERS",
    show_envvar=True,
    help="Processes that share the ports; each follows the store by itself.",
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
    "--model-control-mode",
    default=POLL,
    type=click.Choice(CONTROL_MODES),
    envvar="MODEL_CONTROL_MODE",
    show_envvar=True,
    help="poll follows the store; explicit loads what is asked for; none loads all of it once.",
)
@click.option(
    "--load-model",
    multiple=True,
    metavar="NAME",
    help="A model to load at the start in mode explicit, or * for all; may be given again.",
)
@click.option(
    "--version-policy",
    multiple=True,
    callback=_version_policy,
    metavar="[MODEL=]latest:N|all|specific:N,M",
    envvar="MODEL_VERSION_POLICY",
    show_envvar=True,
    help="Which versions to serve; by default the one in force, or as a model's config.pbtxt says.",
)
@click.option(
    "--max-model-bytes",
    default=LIMITS.model_bytes,
    type=click.IntRange(1),
    envvar="PREDICT_MAX_MODEL_BYTES",
    show_envvar=True,
    help="Largest model file that is served.",
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
    default=LIMITS.rows,
    type=click.IntRange(1),
    envvar="PREDICT_MAX_ROWS",
    show_envvar=True,
    help="Most rows in one request.",
)
def main(workers: int, **options: Any) -> None:
    """Headroom's prediction server: answers with the newest models of a model store, by onnxruntime."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for line in unused(os.environ):
        logger.warning(line)
    try:
        if workers > 1 and not own_place():
            _check_mode(options["model_control_mode"])
            supervise(workers, options["host"], options["port"], sys.argv[1:])
            return
        serve(Config(**{**options, "grpc_port": _grpc_port(options["grpc_port"], options["port"])}))
    except StartError as error:
        raise click.ClickException(str(error)) from error


def _check_mode(mode: str) -> None:
    if mode == EXPLICIT:
        raise StartError("--workers goes with no --model-control-mode explicit: a load would reach one worker alone")


def _grpc_port(given: int | None, http_port: int) -> int | None:
    """None where gRPC is not served. A free port for HTTP asks for a free port here too."""
    if given == 0:
        return None
    return given or (http_port + _GRPC_DISTANCE if http_port else 0)


if __name__ == "__main__":
    main(prog_name="python -m predictor")
