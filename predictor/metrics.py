"""The predictor's metrics: Triton's names where Triton has one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from predictor.engine import Engine, Loaded

_MODEL = ("model", "version")


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.success = self._counter("nv_inference_request_success", "Requests answered", _MODEL)
        self.failure = self._counter("nv_inference_request_failure", "Requests refused", ("model", "reason"))
        self.rows = self._counter("nv_inference_count", "Rows predicted", _MODEL)
        self.executions = self._counter("nv_inference_exec_count", "Batches executed", _MODEL)
        self.duration_us = self._counter("nv_inference_request_duration_us", "Time in requests", _MODEL)
        self.infer_us = self._counter("nv_inference_compute_infer_duration_us", "Time in the model", _MODEL)
        self.polls = self._counter("headroom_predictor_polls", "Looks at the model store", ())
        self.loads = self._counter("headroom_predictor_loads", "Generations loaded", ("outcome",))
        self._gauge("headroom_predictor_ready", "1 when a generation is served").set_function(
            lambda: float(engine.loaded is not None)
        )
        self._gauge("headroom_predictor_generation", "The generation that is served").set_function(
            lambda: _generation(engine.loaded)
        )
        self._gauge("headroom_predictor_generation_age_seconds", "Its age").set_function(lambda: _age_s(engine.loaded))

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def predicted(self, model: str, version: int, rows: int, infer_s: float, request_s: float) -> None:
        """Counts one answered request."""
        labels = (model, str(version))
        self.success.labels(*labels).inc()
        self.rows.labels(*labels).inc(rows)
        self.executions.labels(*labels).inc()
        self.infer_us.labels(*labels).inc(infer_s * 1e6)
        self.duration_us.labels(*labels).inc(request_s * 1e6)

    def _counter(self, name: str, description: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, registry=self.registry)


def _generation(loaded: Loaded | None) -> float:
    return float(loaded.generation.generation) if loaded else 0.0


def _age_s(loaded: Loaded | None) -> float:
    return loaded.generation.age_s if loaded else 0.0
