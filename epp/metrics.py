"""The picker's Prometheus metrics: the names of the gateway API's picker, and this project's own beside them."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_DECISION_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_MODEL = ("model_name", "target_model_name")


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("inference_model_request_total", "Requests that were routed", _MODEL)
        self.errors = self._counter(
            "inference_model_request_error_total", "Requests that failed", (*_MODEL, "error_code")
        )
        self.duration_s = self._histogram(
            "inference_model_request_duration_seconds", "From request headers to the end", _LATENCY_BUCKETS_S, _MODEL
        )
        self.ttft_s = self._histogram(
            "inference_model_request_ttft_seconds", "Observed time to first token", _LATENCY_BUCKETS_S, _MODEL
        )
        self.tpot_s = self._histogram(
            "inference_model_request_tpot_seconds", "Observed time per output token", _TOKEN_BUCKETS_S, _MODEL
        )
        self.predicted_ttft_s = self._histogram(
            "inference_model_request_predicted_ttft_seconds",
            "Predicted time to first token of the picked endpoint",
            _LATENCY_BUCKETS_S,
            _MODEL,
        )
        self.predicted_tpot_s = self._histogram(
            "inference_model_request_predicted_tpot_seconds",
            "Predicted time per output token of the picked endpoint",
            _TOKEN_BUCKETS_S,
            _MODEL,
        )
        self.ttft_violations = self._counter(
            "inference_model_request_ttft_slo_violation_total", "Requests whose TTFT missed its objective", _MODEL
        )
        self.tpot_violations = self._counter(
            "inference_model_request_tpot_slo_violation_total", "Requests whose TPOT missed its objective", _MODEL
        )
        self.decision_s = self._histogram(
            "inference_extension_scheduler_e2e_duration_seconds", "A whole decision", _DECISION_BUCKETS_S, ()
        )
        self.decisions = self._counter(
            "headroom_epp_decisions_total", "Decisions by profile and source of predictions", ("profile", "source")
        )
        self.prediction_s = self._histogram(
            "headroom_epp_prediction_duration_seconds", "A batched prediction", _DECISION_BUCKETS_S, ("outcome",)
        )
        self.observed = self._counter(
            "headroom_epp_observed_responses_total", "Streamed responses by whether they were observed", ("observed",)
        )

    def follow(self, name: str, description: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read when the page is asked for."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, description: str, labels: Iterable[str]) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...], labels: Iterable[str]) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)
