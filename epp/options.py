"""The picker's command-line flags: those of the Go pickers that it replaces, and its own.

Go accepts a switch alone or with a value. Charts pass switch and value as two arguments. Both forms work here.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from epp.flags import Duration, DurationRange

C = TypeVar("C", bound=Callable[..., Any])
Option = Callable[[C], C]

_DURATION = Duration()
_PORT = click.IntRange(0, 65535)

# Accepted because manifests pass them; each has no effect, for the reason given.
WITHOUT_EFFECT: Mapping[str, str] = {
    "refresh_prometheus_metrics_interval": "the pool's gauges are computed for each request of the metrics page",
    "allow_experimental_plugins": "no plugin needs permission",
    "enable_cert_reload": "the certificate is always reloaded when its files change",
    "enable_grpc_stream_metrics": "streams are always counted",
    "grpc_max_send_msg_size": "answers are split to fit the gateway's limit",
    "zap_devel": "--zap-encoder chooses the format of the logs",
    "zap_stacktrace_level": "unexpected errors are always logged with a traceback",
    "zap_time_encoding": "times are ISO 8601",
}


def _option(name: str, default: Any, text: str, kind: Any = str, variable: str | None = None) -> Any:
    return click.option(f"--{name}", default=default, type=kind, envvar=variable, show_envvar=bool(variable), help=text)


def _switch(name: str, default: bool, text: str) -> Any:
    return click.option(f"--{name}", default=default, type=click.BOOL, is_flag=False, flag_value=True, help=text)


def _ignored_option(name: str) -> Any:
    return click.option(
        f"--{name.replace('_', '-')}", default="", is_flag=False, flag_value="true", hidden=True, expose_value=True
    )


_AT_LEAST_ONE = click.IntRange(1, 10_000_000)
_POSITIVE = click.FloatRange(0, min_open=True)
_CHOICE = click.Choice

_OPTIONS: tuple[Any, ...] = (
    _option("host", "0.0.0.0", "Address to listen on.", variable="EPP_HOST"),
    _option("grpc-port", 9002, "Port of the ext_proc service.", _PORT),
    _option("grpc-health-port", 9003, "Port of the gRPC health service.", _PORT),
    _option("metrics-port", 9090, "Port of /metrics and /debug.", _PORT),
    _option(
        "grpc-front",
        "http2",
        "gRPC server: http2, which is this program's own, or grpcio.",
        _CHOICE(["http2", "grpcio"]),
    ),
    _option("workers", 1, "Processes that share the ports.", click.IntRange(1, 64), "EPP_WORKERS"),
    _option("pool-name", "", "InferencePool to watch; also the pool's name in metrics."),
    _option("pool-namespace", "default", "Namespace of the InferencePool.", variable="NAMESPACE"),
    _option("pool-group", "inference.networking.k8s.io", "API group of the InferencePool."),
    _option("endpoint-selector", "", "Pod labels, key=value,...: endpoints without an InferencePool."),
    _option("endpoint-target-ports", "", "Comma-separated ports of the pods of --endpoint-selector."),
    _option("endpoints", "", "[name=]host:port,...: endpoints without Kubernetes.", variable="EPP_ENDPOINTS"),
    _option("endpoints-file", "", "YAML or JSON file of endpoints, watched for changes."),
    _option(
        "kubeconfig", "", "Kubeconfig file. Without it: $KUBECONFIG, the pod's service account, or ~/.kube/config."
    ),
    _switch(
        "ha-enable-leader-election", False, "Be ready only while leading. Replicas elect the leader by a shared Lease."
    ),
    _switch("secure-serving", True, "Serve ext_proc over TLS."),
    _option(
        "cert-path",
        "",
        "Folder of tls.crt and tls.key, reloaded on change. Empty: a self-signed certificate.",
    ),
    _option("tls-min-version", "VersionTLS12", "Lowest TLS version: VersionTLS12 or VersionTLS13."),
    _option("tls-cipher-suites", "", "Comma-separated cipher suites of TLS 1.2. Empty: all that HTTP/2 allows."),
    _option("client-ca-file", "", "CA file. The ext_proc port admits only clients with its certificates."),
    _switch("health-checking", False, "Serve the gRPC health service on the ext_proc port too."),
    _option(
        "grpc-max-recv-msg-size", 64 << 20, "Largest accepted gRPC message, in bytes.", click.IntRange(1, (1 << 31) - 1)
    ),
    _option(
        "max-inspected-body",
        1 << 20,
        "Bytes of a request body that are read. A larger body is routed by its leading part and its size.",
        click.IntRange(1 << 12, 64 << 20),
    ),
    _option(
        "max-buffered-bytes",
        512 << 20,
        "Most memory of a process's gRPC streams, in bytes.",
        click.IntRange(1 << 20, 1 << 40),
    ),
    _option("max-connections", 1_000, "Most connections to a process's ext_proc port.", click.IntRange(1, 1 << 20)),
    _switch("metrics-endpoint-auth", False, "Admit readers of the metrics port only if Kubernetes allows them."),
    _option("metrics-cert-dir", "", "Folder of tls.crt and tls.key to serve the metrics port over TLS."),
    _option("metrics-client-ca-file", "", "CA file. The metrics port admits only clients with its certificates."),
    _option(
        "model-server-type",
        "vllm",
        "Model server whose metric names are read: vllm, sglang, triton-tensorrt-llm or trtllm-serve.",
    ),
    _option(
        "total-queued-requests-metric",
        None,
        "Gauge of queued requests: name or name{label=value}.  [default: the type's]",
    ),
    _option("total-running-requests-metric", None, "Gauge of running requests.  [default: the type's]"),
    _option("kv-cache-usage-percentage-metric", None, "Gauge of KV cache usage.  [default: the type's]"),
    _option("lora-info-metric", None, "Gauge of LoRA adapters.  [default: the type's]"),
    _option(
        "cache-info-metric",
        None,
        "Gauge whose labels give the KV cache's block size and number of blocks.  [default: the type's]",
    ),
    _option(
        "refresh-metrics-interval",
        "50ms-500ms",
        "Pause between scrapes while there is traffic. A range: long where all requests come through this picker.",
        DurationRange(),
    ),
    _option("idle-metrics-interval", "1s", "Pause between scrapes while there is no traffic.", _DURATION),
    _option(
        "metrics-staleness-threshold",
        "2s",
        "Age from which metrics are stale. Endpoints with stale metrics are left out, unless all are stale.",
        _DURATION,
    ),
    _option("model-server-metrics-port", 0, "Port to scrape. 0: the endpoint's own.", _PORT),
    _option("model-server-metrics-path", "/metrics", "Path to scrape."),
    _option("model-server-metrics-scheme", "http", "Scheme to scrape.", _CHOICE(["http", "https"])),
    _switch("model-server-metrics-https-insecure-skip-verify", True, "Accept any certificate of a model server."),
    _option(
        "model-server-metrics-ca-file",
        "",
        "CA file to verify https pages, reloaded on change. It overrides the acceptance of any certificate.",
    ),
    _option(
        "model-server-metrics-token-file",
        "",
        "File of the bearer token for the model servers' metrics, re-read when it changes. Empty: send none.",
    ),
    _option("config-file", "", "EndpointPickerConfig file, applied again when it changes."),
    _option("config-text", "", "EndpointPickerConfig as text."),
    _option(
        "default-objectives-file",
        "",
        "File of objectives for requests that bring none, by model or header; applied again when it changes.",
    ),
    _switch("shadow", False, "Route no request by prediction, and record what prediction would have chosen."),
    _option("outcome-journal", "", "Folder for a line about each ended request, which headroom report reads."),
    _switch("disable-endpoint-subset-filter", False, "Ignore the gateway's subset hint: choose among all endpoints."),
    _switch("emit-endpoint-scores", False, "Send every candidate's score to the gateway, in the dynamic metadata."),
    _switch("enable-latency-predictor", False, "Predict latencies and send training rows."),
    _option(
        "latency-client",
        "remote",
        "remote: ask the prediction servers. embedded: predict in this process with the models of --model-store.",
        _CHOICE(["remote", "embedded"]),
        "LATENCY_CLIENT",
    ),
    _option(
        "prediction-server-url",
        "http://localhost:8001,http://localhost:8002,http://localhost:8003",
        "Comma-separated URLs of prediction servers.",
        variable="PREDICTION_SERVER_URL",
    ),
    _option(
        "prediction-timeout", "20ms", "Longest wait for a prediction. Then the default profile decides.", _DURATION
    ),
    _option("model-store", "/models", "Models of the embedded client: folder or s3:// URL.", variable="MODEL_STORE"),
    _option(
        "verify-key-file",
        "",
        "PEM file of public keys. The embedded client loads only what one of them has signed. Empty: all.",
        variable="MODEL_VERIFY_KEY_FILE",
    ),
    _option(
        "model-sync-interval-sec",
        10.0,
        "Seconds between checks of --model-store for new models.",
        _POSITIVE,
        "MODEL_SYNC_INTERVAL_SEC",
    ),
    _option(
        "training-server-url", "http://localhost:8000", "URL of the training server.", variable="TRAINING_SERVER_URL"
    ),
    _option(
        "latency-ca-file",
        "",
        "CA file to verify https:// prediction and training servers, reloaded on change. Empty: the system's CAs.",
        variable="LATENCY_CA_FILE",
    ),
    _option(
        "latency-token-file",
        "",
        "File of the bearer token for prediction and training servers, re-read when it changes. Empty: send none.",
        variable="LATENCY_TOKEN_FILE",
    ),
    _option(
        "latency-max-sample-size",
        10_000,
        "Most training rows to keep until they are sent.",
        _AT_LEAST_ONE,
        "LATENCY_MAX_SAMPLE_SIZE",
    ),
    _option(
        "latency-flush-interval-sec",
        1.0,
        "Seconds between sends of training rows.",
        _POSITIVE,
        "LATENCY_FLUSH_INTERVAL_SEC",
    ),
    _option(
        "latency-http-timeout-sec",
        10.0,
        "Longest wait for the trainer, in seconds.",
        _POSITIVE,
        "LATENCY_HTTP_TIMEOUT_SEC",
    ),
    _option(
        "observed-responses-per-second",
        50.0,
        "Most streamed responses to observe token by token, per second. The others cost no message per token.",
        click.FloatRange(0),
    ),
    _option(
        "observed-tokens-per-second",
        5000.0,
        "Most output tokens to observe, per second. This also limits the observed responses.",
        click.FloatRange(0),
    ),
    _option("tokenizer", "", "tokenizer.json to count prompt tokens. Empty: an estimate that responses calibrate."),
    _switch("predictions-in-headers", False, "Show predictions in response headers and Server-Timing."),
    _switch(
        "predictions-in-usage",
        False,
        "Show predictions in the usage of streamed responses. Every streamed response is then observed.",
    ),
    _option(
        "try-timeout-factor",
        0.0,
        "Let Envoy ask another server if a streamed request has no answer after this many times its predicted TTFT. "
        "0: never.",
        click.FloatRange(0),
    ),
    _option(
        "degrade-after",
        "50ms",
        "If every request waits this long, picks are made without predictions, and then at random. 0s: never.",
        _DURATION,
    ),
    _switch("live-page", False, "Serve a page at /live/ of the metrics port that shows pool, decisions and models."),
    _option(
        "live-page-token-file",
        "",
        "File of the token that callers from elsewhere need for /live/. Empty: only callers on this host.",
        variable="EPP_LIVE_PAGE_TOKEN_FILE",
    ),
    _option("live-comparison-file", "", "JSON file of other policies' figures, which the live page shows."),
    _option(
        "debug-access",
        "all",
        "Who may read /debug without --metrics-endpoint-auth. all: everyone. local: callers on this host.",
        _CHOICE(["all", "local"]),
        "EPP_DEBUG_ACCESS",
    ),
    _option("debug-decisions", 1000, "Decisions kept for /debug/decisions.", click.IntRange(0)),
    _switch("enable-pprof", True, "Serve CPU profiles at /debug/pprof/profile."),
    _switch("tracing", False, "Send traces by OTLP over HTTP, configured by the OTEL_* variables."),
    _option(
        "shutdown-delay",
        "2s",
        "Time after SIGTERM or SIGINT in which new requests are accepted, while health reports NOT_SERVING.",
        _DURATION,
    ),
    _option("drain-timeout", "30s", "Longest wait for open streams to finish.", _DURATION),
    click.option("--v", "-v", default=2, type=int, help="Log verbosity. From 4 on, debug lines are logged."),
    _option("zap-encoder", "console", "Log format: console (text) or json.", _CHOICE(["console", "json"])),
    _option("zap-log-level", "", "Lowest level to log: debug, info or error, or a number as for -v."),
    *map(_ignored_option, WITHOUT_EFFECT),
)


def options(command: C) -> C:
    """Add all of the picker's flags to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
