"""What is learnt from a request's fate: metrics, and rows for the trainer."""

from collections.abc import Callable
from dataclasses import dataclass

from epp.metrics import LatencyMetrics, Metrics
from epp.pool.slowdowns import Slowdowns
from epp.prediction.features import FeatureColumns, feature_columns
from epp.prediction.training import TrainingSink
from epp.prediction.wire import training_row
from epp.request.routed import Assignment
from epp.request.stream import StreamObserver


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Both latencies are learnt with the features of the moment of dispatch, which is when they are predicted.

    TPOT is learnt with those of the tokens' time as well, and then with how many tokens there were already: the load
    changes while a response is made. With none, it means the whole response as seen from dispatch.

    `slowdowns` are told of the same latencies, so that an endpoint that has become slower is known before models know.
    `objective_label` is how an objective that a request names appears in metrics: clients may name anything.
    """

    metrics: Metrics
    training: TrainingSink | None = None
    slowdowns: Slowdowns | None = None
    objective_label: Callable[[str], str] = lambda name: ""

    def routed(self, assignment: Assignment) -> None:
        record, intake, of_model = assignment.record, assignment.intake, assignment.metrics
        decision = record.decision
        predictions = decision.candidates.predictions
        source = predictions.source if predictions else "fallback" if record.prediction_error else "none"
        self.metrics.decision_of(decision.profile, source).inc()
        self.metrics.decision_s.observe(record.decision_ms / 1000)
        of_model.requests.inc()
        of_model.running.inc()
        if intake.body:
            of_model.request_bytes.observe(len(intake.body))
            of_model.input_tokens.observe(intake.request.input_tokens)
        if intake.request.block_hashes:
            self.metrics.prefix_hit_ratio.observe(record.prefix_score)
            self.metrics.prefix_hit_bytes.observe(record.prefix_score * intake.prompt_bytes)
        if record.predicted:
            _predicted(of_model.ttft, record.predicted[0], record.prediction_ms)
            _predicted(of_model.tpot, record.predicted[1], record.prediction_ms)

    def response_started(self, assignment: Assignment, status: int) -> None:
        assignment.record.outcome.status = status
        if status >= 400:
            self.metrics.error(assignment.intake.incoming_model, assignment.intake.request.model, str(status))

    def first_token(self, assignment: Assignment, ttft_ms: float) -> None:
        record, request = assignment.record, assignment.intake.request
        record.outcome.ttft_ms = ttft_ms
        predicted_ms = record.predicted[0] if record.predicted else None
        self._observed(assignment, "ttft", assignment.metrics.ttft, ttft_ms, predicted_ms, request.slo_ttft_ms)
        self._teach(assignment, _at_dispatch(assignment), ttft_ms=ttft_ms)

    def generated(self, assignment: Assignment, observer: StreamObserver) -> None:
        """The tokens of an observed response, when no more will come."""
        record, request, tpot_ms = assignment.record, assignment.intake.request, observer.tpot_ms
        if tpot_ms is None:
            return
        record.outcome.tpot_ms = tpot_ms
        predicted_ms = record.predicted[1] if record.predicted else None
        self._observed(assignment, "tpot", assignment.metrics.tpot, tpot_ms, predicted_ms, request.slo_tpot_ms)
        self._teach(assignment, _at_dispatch(assignment), tpot_ms=tpot_ms)
        for stretch in assignment.windows.complete():
            self._teach(assignment, stretch.features, tpot_ms=stretch.tpot_ms(observer.tokens / observer.events))

    def ended(self, assignment: Assignment, duration_ms: float, output_tokens: int | None) -> None:
        record, of_model = assignment.record, assignment.metrics
        record.outcome.duration_ms = duration_ms
        record.outcome.output_tokens = output_tokens
        of_model.running.dec()
        of_model.duration_s.observe(duration_ms / 1000)
        if assignment.is_whole:
            of_model.response_bytes.observe(assignment.response_bytes)
        if output_tokens:
            of_model.output_tokens.observe(output_tokens)
            of_model.normalised_tpot_s.observe(duration_ms / 1000 / output_tokens)

    def _teach(self, assignment: Assignment, features: FeatureColumns, **latencies_ms: float) -> None:
        if self.slowdowns is not None:
            self.slowdowns.observed(assignment.flight.slot, features, **latencies_ms)
        if self.training is not None:
            source = assignment.intake.length_source
            self.training.add(training_row(features, length_source=source, **latencies_ms))

    def _observed(
        self,
        assignment: Assignment,
        name: str,
        metrics: LatencyMetrics,
        observed_ms: float,
        predicted_ms: float | None,
        slo_ms: float | None,
    ) -> None:
        metrics.observed_s.observe(observed_ms / 1000)
        metrics.observed_last_s.set(observed_ms / 1000)
        if predicted_ms is not None and observed_ms > 0:
            metrics.relative_error.observe(abs(predicted_ms - observed_ms) / observed_ms)
        if slo_ms is None:
            return
        is_met = observed_ms <= slo_ms
        metrics.threshold_s.set(slo_ms / 1000)
        metrics.violated.set(not is_met)
        if not is_met:
            metrics.violations.inc()
        self.metrics.slo.labels(self.objective_label(assignment.intake.objective), name, str(is_met).lower()).inc()


def _at_dispatch(assignment: Assignment) -> FeatureColumns:
    decision = assignment.record.decision
    return feature_columns(decision.request, decision.candidates.take(decision.result.picked[:1]))


def _predicted(metrics: LatencyMetrics, predicted_ms: float, duration_ms: float) -> None:
    metrics.predicted_s.observe(predicted_ms / 1000)
    metrics.predicted_last_s.set(predicted_ms / 1000)
    metrics.prediction_duration_s.observe(duration_ms / 1000)
    metrics.prediction_duration_last_s.set(duration_ms / 1000)
