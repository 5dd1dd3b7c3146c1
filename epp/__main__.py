"""`python -m epp`: the endpoint picker."""

import logging
import sys
from typing import Any

import click
import uvloop

from epp.check import check
from epp.config import Config
from epp.exceptions import ConfigError
from epp.flags import Duration, double_dashes
from epp.server import serve

_PORT = click.IntRange(0, 65535)
_DURATION = Duration()
_BOOL: dict[str, Any] = {"type": click.BOOL, "is_flag": False, "flag_value": True}


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--host", default="0.0.0.0", envvar="EPP_HOST", show_envvar=True, help="Address to listen on.")
@click.option("--grpc-port", default=9002, type=_PORT, help="Port of the ext_proc service.")
@click.option("--grpc-health-port", default=9003, type=_PORT, help="Port of the gRPC health service.")
@click.option("--metrics-port", default=9090, type=_PORT, help="Port of /metrics and /debug.")
@click.option("--pool-name", default="", help="InferencePool to serve; names the pool in metrics.")
@click.option("--pool-namespace", default="default", help="Namespace of the InferencePool.")
@click.option("--pool-group", default="inference.networking.k8s.io", help="API group of the InferencePool.")
@click.option("--endpoints", default="", envvar="EPP_ENDPOINTS", show_envvar=True, help="[name=]host:port, by commas.")
@click.option("--endpoints-file", default="", help="YAML file of endpoints, watched for changes.")
@click.option("--secure-serving", default=True, **_BOOL, help="Serve ext_proc over TLS.")
@click.option("--cert-path", default="", help="Folder of tls.crt and tls.key; without it, a self-signed certificate.")
@click.option("--health-checking", default=False, **_BOOL, help="gRPC health service on the ext_proc port as well.")
@click.option("--total-queued-requests-metric", default="vllm:num_requests_waiting", help="Queue gauge.")
@click.option("--total-running-requests-metric", default="vllm:num_requests_running", help="Running gauge.")
@click.option("--kv-cache-usage-percentage-metric", default="vllm:gpu_cache_usage_perc", help="KV gauge.")
@click.option("--refresh-metrics-interval", default="50ms", type=_DURATION, help="Pause between scrapes.")
@click.option("--metrics-staleness-threshold", default="2s", type=_DURATION, help="Age limit of metrics.")
@click.option("--model-server-metrics-port", default=0, type=_PORT, help="Port to scrape; 0 is the endpoint's own.")
@click.option("--model-server-metrics-path", default="/metrics", help="Path to scrape.")
@click.option(
    "--model-server-metrics-scheme", default="http", type=click.Choice(["http", "https"]), help="Scheme to scrape."
)
@click.option("--model-server-metrics-https-insecure-skip-verify", default=True, **_BOOL, help="Take any certificate.")
@click.option("--config-file", default="", help="EndpointPickerConfig file.")
@click.option("--config-text", default="", help="EndpointPickerConfig as text.")
@click.option("--enable-latency-predictor", default=False, **_BOOL, help="Predict latencies and send training rows.")
@click.option(
    "--prediction-server-url",
    default="http://localhost:8001,http://localhost:8002,http://localhost:8003",
    envvar="PREDICTION_SERVER_URL",
    show_envvar=True,
    help="Prediction servers, by commas.",
)
@click.option(
    "--training-server-url",
    default="http://localhost:8000",
    envvar="TRAINING_SERVER_URL",
    show_envvar=True,
    help="Training server.",
)
@click.option(
    "--latency-client",
    default="remote",
    type=click.Choice(["remote", "embedded"]),
    envvar="LATENCY_CLIENT",
    show_envvar=True,
    help="Ask the prediction servers, or predict in this process with the models of --model-store.",
)
@click.option("--model-store", default="/models", envvar="MODEL_STORE", show_envvar=True, help="Folder or s3:// URL.")
@click.option(
    "--model-sync-interval-sec",
    default=10.0,
    type=click.FloatRange(0, min_open=True),
    envvar="MODEL_SYNC_INTERVAL_SEC",
    show_envvar=True,
    help="Pause between looks at the model store.",
)
@click.option("--tokenizer", default="", help="tokenizer.json to count prompts with; without it, an estimate.")
@click.option("--predictions-in-headers", default=False, **_BOOL, help="Show predictions in response headers.")
@click.option(
    "--predictions-in-usage",
    default=False,
    **_BOOL,
    help="Show predictions in the usage of streamed responses, each of which is then followed.",
)
@click.option("--prediction-timeout", default="20ms", type=_DURATION, help="Longest wait for a prediction.")
@click.option(
    "--latency-max-sample-size",
    default=10_000,
    type=click.IntRange(1, 10_000_000),
    envvar="LATENCY_MAX_SAMPLE_SIZE",
    show_envvar=True,
    help="Training rows kept until they are sent.",
)
@click.option(
    "--latency-flush-interval-sec",
    default=1.0,
    type=click.FloatRange(0, min_open=True),
    envvar="LATENCY_FLUSH_INTERVAL_SEC",
    show_envvar=True,
    help="Pause between sends of training rows.",
)
@click.option(
    "--latency-http-timeout-sec",
    default=10.0,
    type=click.FloatRange(0, min_open=True),
    envvar="LATENCY_HTTP_TIMEOUT_SEC",
    show_envvar=True,
    help="Longest wait for the training server.",
)
@click.option(
    "--observed-responses-per-second",
    default=50.0,
    type=click.FloatRange(0),
    help="Streamed responses followed token by token; the rest cost no message a token.",
)
@click.option("--debug-decisions", default=1000, type=click.IntRange(0), help="Decisions kept for /debug/decisions.")
@click.option("--drain-timeout", default="30s", type=_DURATION, help="Longest wait for open streams at the end.")
@click.option("--v", "-v", default=2, type=int, help="Log level: 4 and more shows debugging.")
def main(**options: Any) -> None:
    """Headroom's endpoint picker: an Envoy ext_proc service that sends each request to the replica with headroom.

    `python -m epp check FILE` says what is wrong with an EndpointPickerConfig, or what it means.
    """
    config = Config(**options)
    level = logging.DEBUG if config.v >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(serve(config))
    except (ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check(sys.argv[2:], prog_name="python -m epp check")
    main(double_dashes(sys.argv[1:]), prog_name="python -m epp")
