"""Report each request's outcome: rows for the trainer, observations of slow endpoints, metrics."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from epp.exceptions import DROPPED_REASON, RequestError
from epp.metrics import Metrics
from epp.model_metrics import LatencyMetrics, ModelMetrics
from epp.pool.slowdowns import Slowdowns
from epp.prediction.features import FeatureColumns
from epp.prediction.wire import LengthSource
from epp.request.decisions import Record
from epp.request.outcome_journal import OutcomeJournal, row_of
from epp.request.overload import Level
from epp.request.parsed import ParsedRequest
from epp.request.recent_counts import RecentCounts


class TrainingRows(Protocol):
    """The destination of observed rows: a trainer's queue, or a trainer in the same process."""

    def add(
        self,
        features: FeatureColumns,
        ttft_ms: float = 0.0,
        tpot_ms: float = 0.0,
        length_source: LengthSource = "estimate",
    ) -> None:
        """Take one row, `features` [features, 1]; a latency of 0 means that the row doesn't carry that target."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The receivers of every request's outcome.

    `slowdowns` gets the same latencies as the trainer, so that a slow endpoint is detected before the models learn of
    it. `objective_label` maps the objective named by a request to its metric label, since clients
    may name anything. `journal` and `counts` get every ended request.
    """

    metrics: Metrics
    training: TrainingRows | None = None
    slowdowns: Slowdowns | None = None
    objective_label: Callable[[str], str] = lambda name: ""
    journal: OutcomeJournal | None = None
    counts: RecentCounts | None = None

    @property
    def learns(self) -> bool:
        """True if any receiver needs the features that a latency was observed with."""
        return self.training is not None or self.slowdowns is not None

    def refused(self, error: RequestError) -> None:
        """Count a request that the picker answers itself."""
        self.metrics.refusals.labels(error.code).inc()
        if self.counts is not None:
            self.counts.refused(error.headers.get(DROPPED_REASON, error.code))

    def ended(self, record: Record, objective: str) -> None:
        """Pass an ended request on. `objective` is the objective that the request named."""
        if self.journal is None and self.counts is None:
            return
        row = row_of(record, self.objective_label(objective))
        if self.journal is not None:
            self.journal.add(row)
        if self.counts is not None:
            self.counts.ended(row)

    def open(self, parsed: ParsedRequest, record: Record) -> "Account":
        return Account(self, parsed, record, self.metrics.models.model(parsed.incoming_model, parsed.request.model))


@dataclass(frozen=True, slots=True)
class Account:
    """Reports one request's outcome as it becomes known.

    Both latencies are learnt with the features at dispatch, which is when latencies are predicted. TPOT is also learnt
    with later features, since the load changes while a response is generated.
    """

    shared: Outcomes
    parsed: ParsedRequest
    record: Record
    metrics: ModelMetrics

    def routed(self) -> None:
        record, parsed, metrics = self.record, self.parsed, self.metrics
        decision, shared = record.decision, self.shared.metrics
        shared.decision_counter(decision.profile, record.source).inc()
        shared.decision_s.observe(record.decision_ms / 1000)
        if parsed.unread:
            shared.partly_read(parsed.unread).inc()
        metrics.requests.inc()
        metrics.running.inc()
        if parsed.body_bytes:
            metrics.request_bytes.observe(parsed.body_bytes)
            metrics.input_tokens.observe(parsed.request.input_tokens)
        if parsed.request.block_hashes:
            shared.prefix_hit_ratio.observe(record.prefix_score)
            shared.prefix_hit_bytes.observe(record.prefix_score * parsed.prompt_bytes)
        if record.shadow:
            shadow = record.shadow
            shared.note_shadow(shadow.choice(decision.endpoints[0].name), shadow.chance_made, shadow.chance)
        if record.predicted:
            _predicted(metrics.ttft, record.predicted[0], record.prediction_ms)
            _predicted(metrics.tpot, record.predicted[1], record.prediction_ms)

    def response_started(self, status: int) -> None:
        self.record.outcome.status = status
        if status >= 400:
            self.shared.metrics.models.error(self.parsed.incoming_model, self.parsed.request.model, str(status))

    def response_observed(self, is_observed: bool) -> None:
        self.shared.metrics.observed_counter(is_observed).inc()

    def first_token(self, slot: int, ttft_ms: float) -> None:
        record = self.record
        record.outcome.ttft_ms = ttft_ms
        predicted_ms = record.predicted[0] if record.predicted else None
        self._compare("ttft", self.metrics.ttft, ttft_ms, predicted_ms, self.parsed.request.slo_ttft_ms)
        if self.shared.learns:
            self._teach(slot, record.features, ttft_ms=ttft_ms)

    def generated(self, slot: int, tpot_ms: float, stretches: Iterable[tuple[FeatureColumns, float]]) -> None:
        """Report the TPOT in ms of a whole response, and of its stretches with their own features."""
        record = self.record
        record.outcome.tpot_ms = tpot_ms
        predicted_ms = record.predicted[1] if record.predicted else None
        self._compare("tpot", self.metrics.tpot, tpot_ms, predicted_ms, self.parsed.request.slo_tpot_ms)
        if self.shared.learns:
            self._teach(slot, record.features, tpot_ms=tpot_ms)
            for features, stretch_tpot_ms in stretches:
                self._teach(slot, features, tpot_ms=stretch_tpot_ms)

    def ended(self, duration_ms: float, output_tokens: int | None, response_bytes: int | None) -> None:
        outcome, metrics = self.record.outcome, self.metrics
        outcome.duration_ms = duration_ms
        outcome.output_tokens = output_tokens
        metrics.running.dec()
        metrics.duration_s.observe(duration_ms / 1000)
        if response_bytes is not None:
            metrics.response_bytes.observe(response_bytes)
        if output_tokens:
            metrics.output_tokens.observe(output_tokens)
            metrics.normalised_tpot_s.observe(duration_ms / 1000 / output_tokens)
        self.shared.ended(self.record, self.parsed.objective)

    def _teach(self, slot: int, features: FeatureColumns, *, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> None:
        if self.record.level == Level.RANDOM:
            # The pick looked at a snapshot of another moment, without this request's prefix.
            return
        if self.shared.slowdowns is not None:
            self.shared.slowdowns.observed(slot, features, ttft_ms=ttft_ms, tpot_ms=tpot_ms)
        if self.shared.training is not None:
            self.shared.training.add(features, ttft_ms, tpot_ms, self.parsed.length_source)

    def _compare(
        self, name: str, metrics: LatencyMetrics, observed_ms: float, predicted_ms: float | None, slo_ms: float | None
    ) -> None:
        """Record a latency in metrics, beside its prediction and its objective."""
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
        label = self.shared.objective_label(self.parsed.objective)
        self.shared.metrics.slo.labels(label, name, str(is_met).lower()).inc()


def _predicted(metrics: LatencyMetrics, predicted_ms: float, duration_ms: float) -> None:
    metrics.predicted_s.observe(predicted_ms / 1000)
    metrics.predicted_last_s.set(predicted_ms / 1000)
    metrics.prediction_duration_s.observe(duration_ms / 1000)
    metrics.prediction_duration_last_s.set(duration_ms / 1000)
