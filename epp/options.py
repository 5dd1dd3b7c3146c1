"""The picker's command-line flags: those of the Go pickers that it stands in for, and its own.

Go takes a switch alone or with a value, and charts pass it as two arguments; both are taken here.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from epp.flags import Duration

C = TypeVar("C", bound=Callable[..., Any])
Option = Callable[[C], C]

_DURATION = Duration()
_PORT = click.IntRange(0, 65535)

# Taken since manifests pass them; what they set is otherwise here.
WITHOUT_EFFECT: Mapping[str, str] = {
    "refresh_prometheus_metrics_interval": "the pool's gauges are computed whenever the page is asked for",
    "allow_experimental_plugins": "every plugin here may be used",
    "enable_cert_reload": "the certificate is always read again when its files change",
    "enable_grpc_stream_metrics": "streams are always counted",
    "grpc_max_send_msg_size": "answers are cut to what gateways take",
    "zap_devel": "there is one format of logs for people, and one of JSON",
    "zap_stacktrace_level": "what nobody foresaw is always logged with its traceback",
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
        "grpc-front", "http2", "Who serves gRPC: this program's own HTTP/2, or grpcio.", _CHOICE(["http2", "grpcio"])
    ),
    _option("workers", 1, "Processes that share the ports.", click.IntRange(1, 64), "EPP_WORKERS"),
    _option("pool-name", "", "InferencePool to follow; names the pool in metrics."),
    _option("pool-namespace", "default", "Namespace of the InferencePool.", variable="NAMESPACE"),
    _option("pool-group", "inference.networking.k8s.io", "API group of the InferencePool."),
    _option("endpoint-selector", "", "Labels of pods, key=value by commas: endpoints without an InferencePool."),
    _option("endpoint-target-ports", "", "Ports of such pods, by commas."),
    _option("endpoints", "", "[name=]host:port by commas: endpoints without Kubernetes.", variable="EPP_ENDPOINTS"),
    _option("endpoints-file", "", "YAML or JSON file of endpoints, watched for changes."),
    _option("kubeconfig", "", "Kubeconfig file; without it, the pod's service account."),
    _switch("ha-enable-leader-election", False, "Be ready only while leading, by a Lease that replicas share."),
    _switch("secure-serving", True, "Serve ext_proc over TLS."),
    _option("cert-path", "", "Folder of tls.crt and tls.key, followed; without it, a self-signed certificate."),
    _option("tls-min-version", "VersionTLS12", "VersionTLS12 or VersionTLS13."),
    _option("tls-cipher-suites", "", "Cipher suites of TLS 1.2, by commas; empty for all that HTTP/2 allows."),
    _switch("health-checking", False, "gRPC health service on the ext_proc port as well."),
    _option(
        "grpc-max-recv-msg-size", 64 << 20, "Largest gRPC message taken, in bytes.", click.IntRange(1, (1 << 31) - 1)
    ),
    _switch("metrics-endpoint-auth", False, "Ask the Kubernetes API whether whoever reads the metrics may."),
    _option("metrics-cert-dir", "", "Folder of tls.crt and tls.key: serve the metrics port over TLS."),
    _option("metrics-client-ca-file", "", "CA file: take only clients of the metrics port with its certificates."),
    _option("model-server-type", "vllm", "Whose metric names: vllm, sglang, triton-tensorrt-llm or trtllm-serve."),
    _option("total-queued-requests-metric", None, "Queue gauge: name or name{label=value}.  [default: the type's]"),
    _option("total-running-requests-metric", None, "Running gauge.  [default: the type's]"),
    _option("kv-cache-usage-percentage-metric", None, "KV cache gauge.  [default: the type's]"),
    _option("lora-info-metric", None, "LoRA gauge.  [default: the type's]"),
    _option("refresh-metrics-interval", "50ms", "Pause between scrapes while there is traffic.", _DURATION),
    _option("idle-metrics-interval", "1s", "Pause between scrapes while there is none.", _DURATION),
    _option("metrics-staleness-threshold", "2s", "Age from which metrics aren't believed.", _DURATION),
    _option("model-server-metrics-port", 0, "Port to scrape; 0 is the endpoint's own.", _PORT),
    _option("model-server-metrics-path", "/metrics", "Path to scrape."),
    _option("model-server-metrics-scheme", "http", "Scheme to scrape.", _CHOICE(["http", "https"])),
    _switch("model-server-metrics-https-insecure-skip-verify", True, "Take any certificate of a model server."),
    _option("config-file", "", "EndpointPickerConfig file, applied anew when it changes."),
    _option("config-text", "", "EndpointPickerConfig as text."),
    _switch("disable-endpoint-subset-filter", False, "Choose among all endpoints, whatever the gateway hints at."),
    _switch("emit-endpoint-scores", False, "Tell the gateway every candidate's score, in the dynamic metadata."),
    _switch("enable-latency-predictor", False, "Predict latencies and send training rows."),
    _option(
        "latency-client",
        "remote",
        "Ask the prediction servers, or predict in this process with the models of --model-store.",
        _CHOICE(["remote", "embedded"]),
        "LATENCY_CLIENT",
    ),
    _option(
        "prediction-server-url",
        "http://localhost:8001,http://localhost:8002,http://localhost:8003",
        "Prediction servers, by commas.",
        variable="PREDICTION_SERVER_URL",
    ),
    _option(
        "prediction-timeout", "20ms", "Longest wait for a prediction; then the default profile decides.", _DURATION
    ),
    _option("model-store", "/models", "Folder or s3:// URL, for the embedded client.", variable="MODEL_STORE"),
    _option("model-sync-interval-sec", 10.0, "Pause between looks at it.", _POSITIVE, "MODEL_SYNC_INTERVAL_SEC"),
    _option("training-server-url", "http://localhost:8000", "Training server.", variable="TRAINING_SERVER_URL"),
    _option(
        "latency-ca-file",
        "",
        "CAs that https:// prediction and training servers are verified by, followed; without it, the system's.",
        variable="LATENCY_CA_FILE",
    ),
    _option(
        "latency-max-sample-size", 10_000, "Training rows kept until sent.", _AT_LEAST_ONE, "LATENCY_MAX_SAMPLE_SIZE"
    ),
    _option("latency-flush-interval-sec", 1.0, "Pause between sends.", _POSITIVE, "LATENCY_FLUSH_INTERVAL_SEC"),
    _option("latency-http-timeout-sec", 10.0, "Longest wait for the trainer.", _POSITIVE, "LATENCY_HTTP_TIMEOUT_SEC"),
    _option(
        "observed-responses-per-second",
        50.0,
        "Streamed responses followed token by token; the rest cost no message a token.",
        click.FloatRange(0),
    ),
    _option("observed-tokens-per-second", 5000.0, "Output tokens that this may come to.", click.FloatRange(0)),
    _option("tokenizer", "", "tokenizer.json to count prompts with; without it, a calibrated estimate."),
    _switch("predictions-in-headers", False, "Show predictions in response headers and Server-Timing."),
    _switch("predictions-in-usage", False, "Show them in the usage of streamed responses, each of which is followed."),
    _option("debug-decisions", 1000, "Decisions kept for /debug/decisions.", click.IntRange(0)),
    _switch("enable-pprof", True, "Serve /debug/pprof/profile: a CPU profile of the next seconds."),
    _switch("tracing", False, "Send traces by OTLP over HTTP, as the OTEL_* variables say."),
    _option(
        "shutdown-delay",
        "2s",
        "Still takes new requests for so long after a signal to end, while its health says that it no longer serves.",
        _DURATION,
    ),
    _option("drain-timeout", "30s", "Longest wait for open streams at the end.", _DURATION),
    click.option("--v", "-v", default=2, type=int, help="Log level: 4 and more shows debugging."),
    _option("zap-encoder", "console", "Logs for people, or as JSON.", _CHOICE(["console", "json"])),
    _option("zap-log-level", "", "debug, info or error, or a number as for -v."),
    *map(_ignored_option, WITHOUT_EFFECT),
)


def options(command: C) -> C:
    """All of them, on a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
