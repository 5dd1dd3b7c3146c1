"""One request's way to its endpoint: read, predict, decide, account for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from epp.exceptions import NoEndpointError, PredictionUnavailableError, RequestError, ShedError
from epp.metrics import Metrics
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.prediction.client import LatencyClient
from epp.prediction.features import feature_columns
from epp.prediction.questions import Question, Questions
from epp.request.decisions import DecisionLog, Record
from epp.request.outcomes import Outcomes
from epp.request.parsed import Intake, read_request
from epp.request.routed import Assignment
from epp.request.tokens import TokenEstimator, Tokenizer
from epp.scheduling.scheduler import Refusal, Scheduler
from epp.scheduling.snapshot import Predictions, Snapshot
from epp.scheduling.watch import PluginWatch

if TYPE_CHECKING:
    from epp.request.tracing import Tracing

_TIMED_EVERY = 16
_NOT_ENABLED = "prediction is not enabled: start with --enable-latency-predictor"


@dataclass(slots=True)
class Director:
    """What all requests share. Without a latency client every decision is made without predictions.

    `scheduler` may be exchanged at any time: a decision keeps the one that it began with.
    """

    pool: Pool
    scheduler: Scheduler
    metrics: Metrics
    outcomes: Outcomes
    decisions: DecisionLog
    latency: LatencyClient | None = None
    tokenizer: Tokenizer | None = None
    tracing: "Tracing | None" = None
    tokens: TokenEstimator = field(default_factory=TokenEstimator)
    priority_of: Callable[[str], int] = Objectives().priority_of
    on_decision: Callable[[], None] = lambda: None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    clock: Callable[[], float] = time.perf_counter
    decided: int = 0
    questions: Questions = field(init=False)

    def __post_init__(self) -> None:
        self.questions = Questions(self.pool)

    def assign(
        self, headers: Mapping[str, str], body: bytes, subset: frozenset[str] | None, started_at: float
    ) -> Assignment | Awaitable[Assignment]:
        """Picks the endpoint and counts the request as in flight there, at once unless something must be waited for.

        A RequestError says what the client is told. `account` for the assignment when the client needn't wait for it.
        """
        self.on_decision()
        intake = read_request(headers, body, self.scheduler.prefix, self.tokens, self.priority_of)
        if self.tokenizer and intake.prompt_text and not intake.is_exact:
            return self._count_and_place(self.tokenizer, intake, subset, started_at)
        return self._place(intake, subset, started_at)

    def account(self, assignment: Assignment) -> None:
        """Keeps the decision for whoever asks how it came about, and counts it."""
        self.decisions.add(assignment.record)
        self.outcomes.routed(assignment)

    async def _count_and_place(
        self, tokenizer: Tokenizer, intake: Intake, subset: frozenset[str] | None, started_at: float
    ) -> Assignment:
        tokens = await asyncio.to_thread(tokenizer.count, intake.prompt_text)
        request = replace(intake.request, input_tokens=tokens)
        placed = self._place(replace(intake, request=request, length_source="tokenizer"), subset, started_at)
        return placed if isinstance(placed, Assignment) else await placed

    def _place(
        self, intake: Intake, subset: frozenset[str] | None, started_at: float
    ) -> Assignment | Awaitable[Assignment]:
        scheduler = self.scheduler
        read_at = self.clock()
        pool = self.pool.snapshot(intake.request, subset)
        if not len(pool):
            raise NoEndpointError
        self.metrics.observe_stage("read", read_at - started_at)
        now = self.clock()
        self.metrics.observe_stage("snapshot", now - read_at)
        if not scheduler.wants_predictions(intake.request):
            return self._decide(scheduler, intake, pool, started_at, None)
        if self.latency is None:
            return self._decide(scheduler, intake, pool, started_at, _NOT_ENABLED)
        columns = feature_columns(intake.request, pool)
        question = self.questions.of(columns, pool, wants_costs=scheduler.wants_costs)
        try:
            predicted = self.latency.predict(question.columns)
        except PredictionUnavailableError as error:
            self._note_prediction("unavailable", pool, now)
            return self._decide(scheduler, intake, pool, started_at, str(error))
        if isinstance(predicted, Predictions):
            took_ms = self._note_prediction("ok", pool, now)
            pool = self.questions.answered(question, pool, predicted)
            return self._decide(scheduler, intake, pool, started_at, None, took_ms)
        return self._decide_later(scheduler, intake, pool, started_at, predicted, question)

    async def _decide_later(
        self,
        scheduler: Scheduler,
        intake: Intake,
        pool: Snapshot,
        started_at: float,
        predicted: Awaitable[Predictions],
        question: Question,
    ) -> Assignment:
        asked_at, error, outcome = self.clock(), None, "cancelled"
        try:
            pool = self.questions.answered(question, pool, await predicted)
            outcome = "ok"
        except PredictionUnavailableError as unavailable:
            error, outcome = str(unavailable), "unavailable"
        finally:
            took_ms = self._note_prediction(outcome, pool, asked_at)
        return self._decide(scheduler, intake, pool, started_at, error, took_ms)

    def _decide(
        self,
        scheduler: Scheduler,
        intake: Intake,
        pool: Snapshot,
        started_at: float,
        prediction_error: str | None,
        prediction_ms: float = 0.0,
    ) -> Assignment:
        began_at = self.clock()
        self.decided += 1
        watch = PluginWatch(self.metrics.plugin_took) if self.decided % _TIMED_EVERY == 1 else None
        decision = scheduler.schedule(intake.request, pool, self.rng, watch)
        if isinstance(decision, Refusal):
            if decision.kind == "shed":
                self.metrics.shed.labels(decision.plugin).inc()
            raise _refused(decision)
        now = self.clock()
        self.metrics.observe_stage("schedule", now - began_at)
        record = Record(decision, (now - started_at) * 1000, prediction_error, prediction_ms)
        chosen = decision.chosen
        flight = self.pool.dispatch(int(pool.slots[chosen]), intake.request, float(pool.prefix_score[chosen]))
        model = self.metrics.model(intake.incoming_model, intake.request.model)
        assignment = Assignment(intake, record, flight, model, started_at)
        if self.tracing:
            assignment.trace_headers = self.tracing.decided(assignment, intake.request.headers, now)
        return assignment

    def _note_prediction(self, outcome: str, pool: Snapshot, asked_at: float) -> float:
        """How long it took, in ms."""
        duration_s = self.clock() - asked_at
        self.metrics.prediction_s.labels(outcome).observe(duration_s)
        self.metrics.prediction_rows.observe(len(pool))
        self.metrics.observe_stage("predict", duration_s)
        return duration_s * 1000


def _refused(refusal: Refusal) -> RequestError:
    if refusal.kind == "no-endpoint":
        return NoEndpointError(refusal.message)
    return ShedError(refusal.message, refusal.retry_after_s)
