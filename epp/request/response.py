"""A response's way past the picker: what of it is followed, and how the request's accounting ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.prediction.features import FeatureColumns, feature_columns
from epp.request.budget import ObservationBudget
from epp.request.outcomes import Outcomes
from epp.request.routed import Assignment
from epp.request.stream import StreamObserver, Usage, read_usage
from epp.request.stretches import Pace
from epp.request.tokens import TokenEstimator

if TYPE_CHECKING:
    from epp.request.tracing import Tracing

_MOST_KEPT_BYTES = 4 << 20
_USAGE = b'"usage"'


@dataclass(frozen=True, slots=True)
class Responses:
    """What all responses share. `follows_all` observes every streamed response, whatever the budget says."""

    pool: Pool
    metrics: Metrics
    outcomes: Outcomes
    budget: ObservationBudget
    tokens: TokenEstimator
    follows_all: bool = False
    tracing: "Tracing | None" = None
    clock: Callable[[], float] = time.perf_counter

    def started(self, assignment: Assignment, status: int, content_type: str) -> bool:
        """Whether the response is to be followed chunk by chunk: as many as the trainer can use are."""
        self.outcomes.response_started(assignment, status)
        assignment.is_stream = "text/event-stream" in content_type
        is_observed = False
        # What was predicted for one endpoint can't be learnt from another.
        if status < 400 and assignment.is_stream and not assignment.was_moved:
            is_observed = self.budget.take(self.clock()) or self.follows_all
            self.metrics.observed_of(is_observed).inc()
        if is_observed:
            assignment.observer = StreamObserver()
        else:
            self._expect_first_token(assignment)
        return is_observed

    def served_by(self, assignment: Assignment, address: str) -> None:
        """Moves the request to the endpoint that served it in the end, one further down the list of choices."""
        slot = self.pool.slot_of(address)
        if slot is None or slot == assignment.flight.slot:
            return
        self.pool.finish(assignment.flight)
        assignment.flight = self.pool.dispatch(slot, assignment.intake.request, 0.0)
        assignment.was_moved = True

    def chunk(self, assignment: Assignment, chunk: bytes, end_of_stream: bool, now_s: float) -> None:
        """Takes in a piece of the body, observed or not, that came at this moment of the clock."""
        assignment.response_bytes += len(chunk)
        assignment.is_whole = end_of_stream
        observer = assignment.observer
        if observer is None:
            self._keep_usage(assignment, chunk)
            return
        events = observer.feed(chunk, now_s)
        if not events:
            return
        self.budget.spend(events)
        if assignment.pace is None:
            self._first_token(assignment, now_s)
        else:
            self._next_tokens(assignment, assignment.pace, events, now_s)
        if assignment.windows.is_due:
            features = self._features_now(assignment, observer.events)
            assignment.windows.begin(features, observer.events, now_s)

    def finish(self, assignment: Assignment) -> None:
        """Ends the request's accounting, however it ended; harmless when called again."""
        if assignment.flight.done:
            return
        observer = assignment.observer
        if observer is not None:
            self._tell_pace(assignment, observer.last_at)
        self.pool.finish(assignment.flight)
        if observer is None:
            usage = self._kept_usage(assignment)
            prompt, output = (usage.prompt, usage.output) if usage else (None, None)
        else:
            prompt, output = observer.prompt_tokens, observer.tokens
            self.outcomes.generated(assignment, observer)
        if prompt and not assignment.intake.is_exact:
            self.tokens.learn(assignment.intake.request.model, assignment.intake.prompt_bytes, prompt)
        self.outcomes.ended(assignment, (self.clock() - assignment.started_at) * 1000, output)
        if self.tracing:
            self.tracing.ended(assignment)

    def _first_token(self, assignment: Assignment, now_s: float) -> None:
        ttft_ms = (now_s - assignment.started_at) * 1000
        flight = assignment.flight
        assignment.pace = Pace(now_s)
        self.pool.first_token(flight)
        self.pool.record_ttft(flight, ttft_ms)
        self.outcomes.first_token(assignment, ttft_ms)

    def _next_tokens(self, assignment: Assignment, pace: Pace, events: int, now_s: float) -> None:
        pace.events += events
        if pace.is_due:
            self._tell_pace(assignment, now_s)
        self.pool.saw_tokens(assignment.flight.slot, events)
        self.pool.generated(assignment.flight, events)
        assignment.windows.add(events, now_s)

    def _tell_pace(self, assignment: Assignment, now_s: float | None) -> None:
        """Of the stretch that there is, if any."""
        if assignment.pace and assignment.pace.events and now_s is not None:
            self.pool.record_gap(assignment.flight.slot, *assignment.pace.take(now_s))

    def _features_now(self, assignment: Assignment, tokens: int) -> FeatureColumns:
        """The endpoint's load at this moment as another request would see it: without this request's own share."""
        pool = self.pool.snapshot_beside(assignment.flight, assignment.record.prefix_score)
        return feature_columns(assignment.intake.request, pool, tokens)

    def _expect_first_token(self, assignment: Assignment) -> None:
        """Nobody will see the first token come, so it is taken to come when it was expected."""
        predicted = assignment.record.predicted
        expected_ms = predicted[0] if predicted else self.pool.expected_ttft_ms(assignment.flight)
        passed_ms = (self.clock() - assignment.started_at) * 1000
        self.pool.expect_first_token(assignment.flight, max(expected_ms - passed_ms, 0.0))

    def _keep_usage(self, assignment: Assignment, chunk: bytes) -> None:
        """Of a stream the last chunk that speaks of usage; of a JSON document all, since usage is at its end."""
        if assignment.is_stream:
            if _USAGE in chunk:
                assignment.tail = chunk
        elif len(assignment.tail) + len(chunk) <= _MOST_KEPT_BYTES:
            assignment.tail += chunk

    def _kept_usage(self, assignment: Assignment) -> Usage | None:
        if not assignment.tail or not assignment.is_whole:
            return None
        if not assignment.is_stream:
            return read_usage(assignment.tail)
        observer = StreamObserver()
        observer.feed(assignment.tail, 0.0)
        return Usage(observer.prompt_tokens, observer.completion_tokens)
