"""Route a parsed request to an endpoint: predict, decide, dispatch."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from epp.exceptions import NoEndpointError, PredictionUnavailableError, RequestError, ShedError
from epp.metrics import Metrics
from epp.prediction.client import LatencyClient
from epp.prediction.features import feature_columns
from epp.prediction.questions import Question, Questions
from epp.request.decisions import Record
from epp.request.overload import Level
from epp.request.parsed import ParsedRequest
from epp.request.routed import Bookkeeping, RoutedRequest
from epp.request.shadow import Shadow, shadow_of
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision, Refusal, Scheduler
from epp.scheduling.snapshot import Predictions, Snapshot
from epp.scheduling.watch import PluginWatch

if TYPE_CHECKING:
    from epp.request.tracing import Tracing

logger = logging.getLogger("headroom.epp.latency")

# One of this many decisions measures the time of its plugins.
_TIMED_EVERY = 16
_NOT_ENABLED = "prediction is not enabled: start with --enable-latency-predictor"
_OVERLOADED = "the picker is overloaded"
_DOUBTED = "predictions are too far from what is observed"
# Pause between lines of the log about unexpected errors.
_LOG_PAUSE_S = 60.0
# Random picks of so many seconds share one snapshot, because a snapshot is a third of a pick's work.
_SHARED_S = 0.05
_ANY_REQUEST = Request("", "")


@dataclass(slots=True)
class Director:
    """Routes requests, with the parts that all requests share.

    Without a latency client, every decision is made without predictions. `scheduler` may be replaced at any time; a
    request keeps the scheduler that it began with. With `is_shadow`, no request is routed by prediction, and each that
    wants it has a record of what prediction would have chosen. `clock` returns the seconds of the pool's clock.
    """

    scheduler: Scheduler
    books: Bookkeeping
    latency: LatencyClient | None = None
    tracing: "Tracing | None" = None
    on_decision: Callable[[], None] = lambda: None
    is_shadow: bool = False
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    clock: Callable[[], float] = time.monotonic
    decided: int = 0
    questions: Questions = field(init=False)
    _shared: Snapshot | None = field(default=None, init=False)
    _shared_at_s: float = field(default=0.0, init=False)
    _next_log_s: float = field(default=-np.inf, init=False)

    def __post_init__(self) -> None:
        self.questions = Questions(self.books.pool, self.clock)

    @property
    def metrics(self) -> Metrics:
        return self.books.outcomes.metrics

    def route(
        self, parsed: ParsedRequest, subset: frozenset[str] | None, arrived_s: float, level: Level = Level.NORMAL
    ) -> RoutedRequest | Awaitable[RoutedRequest]:
        """Pick the endpoint and count the request as in flight there, at once unless a prediction must be awaited.

        `subset` limits the choice to these hosts. `level` says how much work the pick may be. A RequestError carries
        the answer to the client. Call the routed request's `record_decision` later, when the client needn't wait.
        """
        self.on_decision()
        read_s = self.clock()
        candidates = self._candidates(parsed.request, subset, level)
        if not len(candidates):
            raise NoEndpointError
        self.metrics.observe_stage("read", read_s - arrived_s)
        self.metrics.observe_stage("snapshot", self.clock() - read_s)
        return _ArrivedRequest(self, self.scheduler, parsed, candidates, arrived_s, level).route()

    def log_failure(self, error: Exception) -> None:
        """Log an unexpected error of a prediction, at most once a minute."""
        now_s = self.clock()
        if now_s >= self._next_log_s:
            self._next_log_s = now_s + _LOG_PAUSE_S
            logger.error("predictions fail unexpectedly; requests are routed without them", exc_info=error)

    def _candidates(self, request: Request, subset: frozenset[str] | None, level: Level) -> Snapshot:
        if level != Level.RANDOM or subset is not None:
            return self.books.pool.snapshot(request, subset)
        now_s = self.clock()
        if self._shared is None or now_s - self._shared_at_s >= _SHARED_S:
            self._shared, self._shared_at_s = self.books.pool.snapshot(_ANY_REQUEST), now_s
        return self._shared


@dataclass(slots=True)
class _ArrivedRequest:
    """A request without an endpoint yet. `prediction_error` says why there is no prediction."""

    director: Director
    scheduler: Scheduler
    parsed: ParsedRequest
    candidates: Snapshot
    arrived_s: float
    level: Level
    prediction_error: str | None = None
    prediction_ms: float = 0.0
    shadow: Shadow | None = None

    def route(self) -> RoutedRequest | Awaitable[RoutedRequest]:
        """Predict if the scheduler wants predictions, then decide and dispatch."""
        director, request = self.director, self.parsed.request
        if not self.scheduler.wants_predictions(request):
            return self._dispatch(self._decide())
        if director.latency is None:
            self.prediction_error = _NOT_ENABLED
            return self._dispatch(self._decide())
        if self.level:
            self.prediction_error = _OVERLOADED
            return self._dispatch(self._decide())
        asked_s = director.clock()
        try:
            columns = feature_columns(request, self.candidates)
            question = director.questions.build(columns, self.candidates, wants_costs=self.scheduler.wants_costs)
            predictions = director.latency.predict(question.columns)
            if not isinstance(predictions, Predictions):
                return self._route_later(question, predictions, asked_s)
            self._take(question, predictions, asked_s)
        except Exception as error:
            self._note_failure(error, asked_s)
        return self._dispatch(self._decide())

    async def _route_later(
        self, question: Question, predictions: Awaitable[Predictions], asked_s: float
    ) -> RoutedRequest:
        try:
            self._take(question, await predictions, asked_s)
        except Exception as error:
            self._note_failure(error, asked_s)
        except BaseException:
            self._note_prediction("cancelled", asked_s)
            raise
        return self._dispatch(self._decide())

    def _take(self, question: Question, predictions: Predictions, asked_s: float) -> None:
        self.candidates = self.director.questions.add_predictions(question, self.candidates, predictions)
        self._note_prediction("ok", asked_s)

    def _note_failure(self, error: Exception, asked_s: float) -> None:
        """Go on without predictions, whatever has failed: no request is lost to them."""
        self.prediction_error = str(error) or type(error).__name__
        self._note_prediction("unavailable", asked_s)
        if not isinstance(error, PredictionUnavailableError):
            self.director.log_failure(error)

    def _note_prediction(self, outcome: str, asked_s: float) -> None:
        duration_s = self.director.clock() - asked_s
        self.prediction_ms = duration_s * 1000
        self.director.metrics.note_prediction(outcome, duration_s, len(self.candidates))

    def _decide(self) -> Decision:
        director = self.director
        began_s = director.clock()
        director.decided += 1
        watch = PluginWatch(director.metrics.observe_plugin) if director.decided % _TIMED_EVERY == 1 else None
        at_random = self.level == Level.RANDOM
        is_doubted = self._is_doubted()
        candidates = self.candidates.without_predictions() if is_doubted else self.candidates
        request, by_prediction = self.parsed.request, None
        if director.is_shadow and request.prediction_based:
            if candidates.predictions is not None:
                by_prediction = self.scheduler.schedule(request, candidates, director.rng)
            request = replace(request, prediction_based=False)
        decision = self.scheduler.schedule(request, candidates, director.rng, watch, at_random=at_random)
        if isinstance(decision, Refusal):
            if decision.kind == "shed":
                director.metrics.shed.labels(decision.plugin).inc()
            raise _refused(decision)
        if by_prediction is not None:
            self.shadow = shadow_of(request, decision, by_prediction)
        director.metrics.observe_stage("schedule", director.clock() - began_s)
        # Predictions that don't decide are kept, to see when they are better.
        return replace(decision, candidates=self.candidates) if is_doubted else decision

    def _is_doubted(self) -> bool:
        """Return whether there are predictions that may not decide."""
        if self.director.books.confidence.may_decide or not self.scheduler.wants_costs:
            return False
        if self.candidates.predictions is None:
            return False
        self.prediction_error = _DOUBTED
        return True

    def _dispatch(self, decision: Decision) -> RoutedRequest:
        director, parsed = self.director, self.parsed
        now_s = director.clock()
        decision_ms = (now_s - self.arrived_s) * 1000
        record = Record(
            decision, decision_ms, self.prediction_error, self.prediction_ms, level=self.level, shadow=self.shadow
        )
        slot = int(decision.candidates.slots[decision.chosen])
        flight = director.books.pool.dispatch(slot, parsed.request, record.prefix_score)
        account = director.books.outcomes.open(parsed, record)
        span = director.tracing.begin(record, self.arrived_s, now_s) if director.tracing else None
        return RoutedRequest(director.books, parsed, record, flight, account, self.arrived_s, span)


def _refused(refusal: Refusal) -> RequestError:
    if refusal.kind == "no-endpoint":
        # There were candidates, but the filters leave none.
        return NoEndpointError(refusal.message, "rejected-saturated")
    return ShedError(refusal.message, refusal.retry_after_s)
