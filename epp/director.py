"""One request's way through the picker: read, predict, decide, account for it, observe its response."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from epp.decisions import DecisionLog, Record
from epp.exceptions import NoEndpointError, PredictionUnavailableError
from epp.features import FeatureMatrix, feature_matrix
from epp.intake import Intake, read_request
from epp.latency.client import LatencyClient
from epp.metrics import Metrics
from epp.observation import StreamObserver
from epp.outcomes import Outcomes
from epp.pool.pool import InFlight, Pool
from epp.sampling import ObservationBudget
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.snapshot import Predictions
from epp.tokens import TokenEstimator

logger = logging.getLogger("headroom.epp")


@dataclass(slots=True)
class Assignment:
    """A routed request until its end."""

    intake: Intake
    record: Record
    flight: InFlight
    started_at: float
    observer: StreamObserver | None = None

    @property
    def destination(self) -> str:
        return ",".join(endpoint.address for endpoint in self.record.decision.endpoints)


@dataclass(frozen=True, slots=True)
class Director:
    """What all requests share. Without a latency client every decision is made without predictions."""

    pool: Pool
    scheduler: Scheduler
    metrics: Metrics
    outcomes: Outcomes
    decisions: DecisionLog
    budget: ObservationBudget
    latency: LatencyClient | None = None
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    clock: Callable[[], float] = time.perf_counter

    async def assign(
        self, headers: Mapping[str, str], body: bytes, subset: frozenset[str] | None, started_at: float
    ) -> Assignment:
        """Picks the endpoint and counts the request as in flight there; a RequestError says what the client is told."""
        intake = read_request(headers, body, self.scheduler.prefix, self.tokens)
        pool = self.pool.snapshot(intake.request, subset)
        if not len(pool):
            raise NoEndpointError
        matrix = feature_matrix(intake.request, pool)
        prediction_error = None
        if self.scheduler.wants_predictions(intake.request):
            try:
                pool = pool.with_predictions(await self._predict(matrix))
            except PredictionUnavailableError as error:
                prediction_error = str(error)
        decision = self.scheduler.schedule(intake.request, pool, self.rng)
        if decision is None:
            raise NoEndpointError("no endpoint passes the profile's filters")
        record = Record(decision, matrix, (self.clock() - started_at) * 1000, prediction_error)
        chosen = decision.chosen
        flight = self.pool.dispatch(int(pool.slots[chosen]), intake.request, float(pool.prefix_score[chosen]))
        self.decisions.add(record)
        self.outcomes.routed(record)
        return Assignment(intake, record, flight, started_at)

    def response_started(self, assignment: Assignment, status: int, content_type: str) -> bool:
        """Whether the response's body is to be observed."""
        self.outcomes.response_started(assignment.record, status)
        if status >= 400 or "text/event-stream" not in content_type:
            return False
        observed = self.budget.take(self.clock())
        self.metrics.observed.labels(str(observed).lower()).inc()
        if observed:
            assignment.observer = StreamObserver()
        return observed

    def response_chunk(self, assignment: Assignment, chunk: bytes) -> None:
        """Takes in a piece of an observed response."""
        observer = assignment.observer
        if observer is None:
            return
        before_at, before = observer.last_at, observer.events
        observer.feed(chunk, self.clock())
        if observer.last_at is None or observer.events == before:
            return
        if before_at is None:
            ttft_ms = (observer.last_at - assignment.started_at) * 1000
            self.pool.first_token(assignment.flight)
            self.pool.record_ttft(assignment.flight, ttft_ms)
            self.outcomes.first_token(assignment.record, ttft_ms)
        else:
            gap_ms = (observer.last_at - before_at) * 1000
            self.pool.record_gap(assignment.flight.slot, gap_ms, observer.events - before)

    def finish(self, assignment: Assignment) -> None:
        """Ends the request's accounting, however it ended; harmless when called again."""
        if assignment.flight.done:
            return
        self.pool.finish(assignment.flight)
        self.outcomes.ended(assignment.record, (self.clock() - assignment.started_at) * 1000)
        observer = assignment.observer
        if observer is None:
            return
        assignment.record.outcome.output_tokens = observer.tokens
        if observer.prompt_tokens:
            self.tokens.learn(assignment.intake.request.model, assignment.intake.prompt_bytes, observer.prompt_tokens)
        if observer.tpot_ms is not None:
            self.outcomes.generated(assignment.record, observer.tpot_ms)

    async def _predict(self, matrix: FeatureMatrix) -> Predictions:
        if self.latency is None:
            raise PredictionUnavailableError("prediction is not enabled: start with --enable-latency-predictor")
        started_at, outcome = self.clock(), "unavailable"
        try:
            predictions = await self.latency.predict(matrix)
            outcome = "ok"
            return predictions
        finally:
            self.metrics.prediction_s.labels(outcome).observe(self.clock() - started_at)
