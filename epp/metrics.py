"""The picker's Prometheus metrics: those of the gateway API's picker under its names, and this project's own."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_DECISION_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_BYTE_BUCKETS = tuple(64 * 4**power for power in range(11))
_TOKEN_COUNT_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 1048576)
_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_ERROR_BUCKETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5)
Labels = tuple[tuple[str, str], ...]
_MODEL = ("model_name", "target_model_name")
# Clients name the models, and each name adds about forty series. Further models share the name `other`.
_MOST_MODELS = 1000
# Characters of a model name; longer names become `other` too.
_LONGEST_NAME = 256
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class LatencyMetrics:
    """The metrics of one latency (TTFT or TPOT) of one model."""

    observed_s: Histogram
    observed_last_s: Gauge
    predicted_s: Histogram
    predicted_last_s: Gauge
    prediction_duration_s: Histogram
    prediction_duration_last_s: Gauge
    violated: Gauge
    violations: Counter
    threshold_s: Gauge
    relative_error: Histogram


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The metrics of one model, looked up once per request."""

    requests: Counter
    duration_s: Histogram
    request_bytes: Histogram
    response_bytes: Histogram
    input_tokens: Histogram
    output_tokens: Histogram
    normalised_tpot_s: Histogram
    running: Gauge
    ttft: LatencyMetrics
    tpot: LatencyMetrics


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # prometheus_client refuses a gauge `x` beside a counter `x_total` in one registry.
        self._violation_registry = CollectorRegistry()
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._requests = self._counter("inference_model_request_total", "Requests routed to an endpoint", _MODEL)
        self._errors = self._counter(
            "inference_model_request_error_total", "Requests that failed", (*_MODEL, "error_code")
        )
        self._duration_s = self._histogram(
            "inference_model_request_duration_seconds",
            "Seconds from the request's headers to the end of the response",
            _LATENCY_BUCKETS_S,
            _MODEL,
        )
        self._request_bytes = self._histogram(
            "inference_model_request_sizes", "Sizes of request bodies in bytes", _BYTE_BUCKETS, _MODEL
        )
        self._response_bytes = self._histogram(
            "inference_model_response_sizes", "Sizes of response bodies seen whole, in bytes", _BYTE_BUCKETS, _MODEL
        )
        self._input_tokens = self._histogram(
            "inference_model_input_tokens", "Tokens per prompt", _TOKEN_COUNT_BUCKETS, _MODEL
        )
        self._output_tokens = self._histogram(
            "inference_model_output_tokens",
            "Output tokens per response whose tokens were counted",
            _TOKEN_COUNT_BUCKETS,
            _MODEL,
        )
        self._normalised_tpot_s = self._histogram(
            "inference_model_normalized_time_per_output_token_seconds",
            "Request duration divided by the number of output tokens",
            _TOKEN_BUCKETS_S,
            _MODEL,
        )
        self._running = Gauge(
            "inference_model_running_requests", "Requests in flight", ("model_name",), registry=self.registry
        )
        self._ttft = self._latency("ttft", "time to first token", _LATENCY_BUCKETS_S)
        self._tpot = self._latency("tpot", "time per output token", _TOKEN_BUCKETS_S)
        self.decision_s = self._histogram(
            "inference_extension_scheduler_e2e_duration_seconds", "Duration of a whole decision", _DECISION_BUCKETS_S
        )
        self._plugin_s = self._histogram(
            "inference_extension_plugin_duration_seconds",
            "Duration of one plugin in a decision; one decision in sixteen is timed",
            _DECISION_BUCKETS_S,
            ("extension_point", "plugin_type", "plugin_name"),
        )
        stage_s = self._histogram(
            "headroom_epp_decision_stage_seconds",
            "Duration of each stage of a decision: read, snapshot, predict, schedule",
            _DECISION_BUCKETS_S,
            ("stage",),
        )
        self._stages = {stage: stage_s.labels(stage) for stage in ("read", "snapshot", "predict", "schedule")}
        self.prefix_hit_ratio = self._histogram(
            "inference_extension_prefix_indexer_hit_ratio",
            "Share of the prompt's blocks that the picked endpoint had received before",
            tuple(step / 10 for step in range(11)),
        )
        self.prefix_hit_bytes = self._histogram(
            "inference_extension_prefix_indexer_hit_bytes",
            "Bytes of the prompt that the picked endpoint had received before",
            (0, *_BYTE_BUCKETS),
        )
        self.decisions = self._counter(
            "headroom_epp_decisions_total", "Decisions by profile and prediction source", ("profile", "source")
        )
        self.refusals = self._counter(
            "headroom_epp_refused_requests_total", "Requests the picker answered with an error", ("code",)
        )
        self.shed = self._counter(
            "headroom_epp_shed_requests_total", "Requests shed for lack of room, by admission plugin", ("plugin",)
        )
        self.floods = self._counter(
            "headroom_epp_http2_floods_total", "Connections closed because of a flood of frames, by its kind", ("kind",)
        )
        self.prediction_s = self._histogram(
            "headroom_epp_prediction_duration_seconds",
            "Duration of a batched prediction",
            _DECISION_BUCKETS_S,
            ("outcome",),
        )
        self.prediction_rows = self._histogram(
            "headroom_epp_prediction_rows", "Endpoints per batched prediction", _BATCH_BUCKETS
        )
        observed = self._counter(
            "headroom_epp_observed_responses_total", "Streamed responses, observed or not", ("observed",)
        )
        self._observed = {True: observed.labels("true"), False: observed.labels("false")}
        self._decisions: dict[tuple[str, str], Counter] = {}
        self._partly_read = self._counter(
            "headroom_epp_partly_read_bodies_total",
            "Requests routed by their size and the leading part of their body, by the reason",
            ("reason",),
        )
        self.slo = self._counter(
            "headroom_epp_slo_total",
            "Observed requests with an SLO, by whether it was met",
            ("objective", "latency", "met"),
        )

    def model(self, incoming: str, target: str) -> ModelMetrics:
        """Return the metrics of model `incoming` as rewritten to `target`."""
        found = self._models.get((incoming, target))
        if found is None:
            if len(self._models) >= _MOST_MODELS or max(len(incoming), len(target)) > _LONGEST_NAME:
                incoming = target = _OTHER
            found = self._models.get((incoming, target))
        if found is None:
            found = self._models[incoming, target] = self._label_model(incoming, target)
        return found

    def partly_read(self, reason: str) -> Counter:
        return self._partly_read.labels(reason)

    def error(self, incoming: str, target: str, code: str) -> None:
        if (incoming, target) not in self._models:
            incoming = target = _OTHER
        self._errors.labels(incoming, target, code).inc()

    def observe_stage(self, stage: str, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def note_prediction(self, outcome: str, seconds: float, rows: int) -> None:
        """Count a batched prediction, answered or not."""
        self.prediction_s.labels(outcome).observe(seconds)
        self.prediction_rows.observe(rows)
        self.observe_stage("predict", seconds)

    def observe_plugin(self, extension_point: str, plugin_type: str, name: str, seconds: float) -> None:
        self._plugin_s.labels(extension_point, plugin_type, name).observe(seconds)

    def decision_counter(self, profile: str, source: str) -> Counter:
        found = self._decisions.get((profile, source))
        if found is None:
            found = self._decisions[profile, source] = self.decisions.labels(profile, source)
        return found

    def observed_counter(self, is_observed: bool) -> Counter:
        return self._observed[is_observed]

    def register_value(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a gauge, or a counter if `name` ends in _total, whose value `read` returns for each page."""
        self.register_collector(_ValuesElsewhere(name, description, lambda: {(): read()}))

    def register_values(self, name: str, description: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register several such values, one per value of `label`."""
        self.register_collector(
            _ValuesElsewhere(name, description, lambda: {((label, key),): value for key, value in read().items()})
        )

    def register_collector(self, collector: Collector) -> None:
        """Register metrics that `collector` makes for each page."""
        self.registry.register(collector)

    def page(self) -> bytes:
        return generate_latest(self.registry) + generate_latest(self._violation_registry)

    def _label_model(self, incoming: str, target: str) -> ModelMetrics:
        labels = (incoming, target)
        return ModelMetrics(
            self._requests.labels(*labels),
            self._duration_s.labels(*labels),
            self._request_bytes.labels(*labels),
            self._response_bytes.labels(*labels),
            self._input_tokens.labels(*labels),
            self._output_tokens.labels(*labels),
            self._normalised_tpot_s.labels(*labels),
            self._running.labels(incoming),
            _with_labels(self._ttft, labels),
            _with_labels(self._tpot, labels),
        )

    def _latency(self, name: str, meaning: str, buckets: tuple[float, ...]) -> LatencyMetrics:
        prefix = f"inference_model_request_{name}"
        predicted = f"inference_model_request_predicted_{name}"
        duration = f"{prefix}_prediction_duration_seconds"
        return LatencyMetrics(
            self._histogram(f"{prefix}_seconds", f"Observed {meaning}", buckets, _MODEL),
            self._gauge(f"{prefix}_seconds_gauge", f"Last observed {meaning}"),
            self._histogram(f"{predicted}_seconds", f"Predicted {meaning} of the picked endpoint", buckets, _MODEL),
            self._gauge(f"{predicted}_seconds_gauge", f"Last predicted {meaning}"),
            self._histogram(duration, f"Duration of the batch that predicted {meaning}", _DECISION_BUCKETS_S, _MODEL),
            self._gauge(f"{duration}_gauge", f"Last duration of a batch that predicted {meaning}"),
            Gauge(
                f"{prefix}_slo_violation",
                f"1 if the last observed request missed its {meaning} SLO, else 0",
                _MODEL,
                registry=self._violation_registry,
            ),
            self._counter(
                f"{prefix}_slo_violation_total", f"Observed requests that missed their {meaning} SLO", _MODEL
            ),
            self._gauge(f"{prefix}_slo_threshold_seconds", f"SLO for {meaning} of the last request that had one"),
            self._histogram(
                f"headroom_epp_{name}_prediction_relative_error",
                "Absolute error of a prediction divided by the observed value",
                _ERROR_BUCKETS,
                _MODEL,
            ),
        )

    def _counter(self, name: str, description: str, labels: Iterable[str]) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, _MODEL, registry=self.registry)

    def _histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: Iterable[str] = ()
    ) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)


class _ValuesElsewhere(Collector):
    """Values by their labels, which another part keeps."""

    def __init__(self, name: str, description: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        self._name, self._description, self._kind, self._read = name, description, kind, read

    def collect(self) -> Iterable[Metric]:
        metric = Metric(self._name.removesuffix("_total"), self._description, self._kind)
        for labels, value in self._read().items():
            metric.add_sample(self._name, dict(labels), value)
        return [metric]


def _with_labels(latency: LatencyMetrics, labels: tuple[str, str]) -> LatencyMetrics:
    return LatencyMetrics(*(getattr(latency, name).labels(*labels) for name in LatencyMetrics.__slots__))
