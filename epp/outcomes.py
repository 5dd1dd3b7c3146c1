"""What is learnt from a response: metrics, and rows for the trainer."""

from dataclasses import dataclass

from epp.decisions import Record
from epp.latency.training import TrainingSink
from epp.latency.wire import training_row
from epp.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Both latencies are learnt with the features of the moment of dispatch, since that is when they are predicted."""

    metrics: Metrics
    training: TrainingSink | None = None

    def routed(self, record: Record) -> None:
        decision = record.decision
        predictions = decision.pool.predictions
        source = predictions.source if predictions else "fallback" if record.prediction_error else "none"
        self.metrics.decisions.labels(decision.profile, source).inc()
        self.metrics.decision_s.observe(record.decision_ms / 1000)
        self.metrics.requests.labels(*_labels(record)).inc()
        if record.predicted:
            ttft_ms, tpot_ms = record.predicted
            self.metrics.predicted_ttft_s.labels(*_labels(record)).observe(ttft_ms / 1000)
            self.metrics.predicted_tpot_s.labels(*_labels(record)).observe(tpot_ms / 1000)

    def response_started(self, record: Record, status: int) -> None:
        record.outcome.status = status
        if status >= 400:
            self.metrics.errors.labels(*_labels(record), str(status)).inc()

    def first_token(self, record: Record, ttft_ms: float) -> None:
        record.outcome.ttft_ms = ttft_ms
        slo_ms = record.decision.request.slo_ttft_ms
        self.metrics.ttft_s.labels(*_labels(record)).observe(ttft_ms / 1000)
        if slo_ms is not None and ttft_ms > slo_ms:
            self.metrics.ttft_violations.labels(*_labels(record)).inc()
        if self.training is not None:
            self.training.add(training_row(_features(record), ttft_ms=ttft_ms))

    def generated(self, record: Record, tpot_ms: float) -> None:
        record.outcome.tpot_ms = tpot_ms
        slo_ms = record.decision.request.slo_tpot_ms
        self.metrics.tpot_s.labels(*_labels(record)).observe(tpot_ms / 1000)
        if slo_ms is not None and tpot_ms > slo_ms:
            self.metrics.tpot_violations.labels(*_labels(record)).inc()
        if self.training is not None:
            self.training.add(training_row(_features(record), tpot_ms=tpot_ms))

    def ended(self, record: Record, duration_ms: float) -> None:
        record.outcome.duration_ms = duration_ms
        self.metrics.duration_s.labels(*_labels(record)).observe(duration_ms / 1000)


def _features(record: Record) -> list[float]:
    features: list[float] = record.features[record.decision.chosen].tolist()
    return features


def _labels(record: Record) -> tuple[str, str]:
    model = record.decision.request.model
    return model, model
