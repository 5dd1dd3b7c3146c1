"""A request from the choice of its endpoint to its end.

The events come from ext_proc, which sees the chunks of a stream, or from a simulation, which sees the steps of an
engine. Both call the same methods, so both lead to the same state of the pool and the same training rows.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from epp.pool.in_flight import InFlight
from epp.pool.pool import Pool
from epp.prediction.confidence import Confidence
from epp.prediction.features import FeatureColumns, feature_columns
from epp.request.base_model import BaseModel
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog, Record
from epp.request.event_tokens import EventTokens
from epp.request.outcomes import Account, Outcomes
from epp.request.parsed import ParsedRequest
from epp.request.stretches import PACE_EVENTS, Pace, TokenStretches
from epp.request.tokens import TokenEstimator
from epp.scheduling.snapshot import TYPICAL_OUTPUT_TOKENS

if TYPE_CHECKING:
    from epp.request.tracing import RequestSpan

_NO_FEATURES = np.empty((0, 1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """The parts that every routed request reports to.

    `observes_all` observes every streamed response and ignores the budget.
    """

    pool: Pool
    outcomes: Outcomes
    decisions: DecisionLog
    budget: ObservationBudget
    tokens: TokenEstimator
    observes_all: bool = False
    base_model: BaseModel = field(default_factory=BaseModel)
    event_tokens: EventTokens = field(default_factory=EventTokens)
    confidence: Confidence = field(default_factory=Confidence)


@dataclass(slots=True, eq=False)
class RoutedRequest:
    """A request with an endpoint. The class knows no bytes, no gateway and no clock.

    Call the methods in the order of the events. Times are seconds of the pool's clock.
    `tokens` counts the output tokens that were seen of the choice that is followed, and `other_tokens` those of further
    choices of the same request. The server's own count of all, if there is one, replaces both. Until then, the usage of
    the endpoint's other responses tells how many tokens an event has that doesn't tell it.
    """

    books: Bookkeeping
    parsed: ParsedRequest
    record: Record
    flight: InFlight
    account: Account
    arrived_s: float
    span: "RequestSpan | None" = None
    is_observed: bool = False
    tokens: int = 0
    other_tokens: int = 0
    first_token_s: float | None = None
    last_token_s: float = 0.0
    stretches: TokenStretches = field(default_factory=TokenStretches)
    _pace: Pace = field(default_factory=Pace)
    _prompt_count: int | None = None
    _output_count: int | None = None
    _choice_ended_s: float = 0.0
    _is_exact: bool = True
    _tokens_per_event: float = 1.0
    # Tokens, and parts of one, that the pool doesn't know of yet.
    _untold: float = 0.0
    _was_moved: bool = False
    # Expected output tokens that the budget has counted and that haven't come yet.
    _prepaid_tokens: float = 0.0

    @property
    def destination(self) -> str:
        """Addresses in the order of preference, joined by commas as gateways expect them."""
        endpoints = self.record.decision.endpoints
        return endpoints[0].address if len(endpoints) == 1 else ",".join(e.address for e in endpoints)

    @property
    def output_tokens(self) -> int | None:
        """The server's own count, else the output tokens that were seen; None without either."""
        if self._output_count is None and self.is_observed:
            return self.tokens + self.other_tokens
        return self._output_count

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per output token of a choice after its first; None before there are two."""
        tokens = self._choice_tokens
        if self.first_token_s is None or tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) * 1000 / (tokens - 1)

    @property
    def _choice_tokens(self) -> float:
        """The tokens of one choice. Choices are generated at the same time, so that only one's have taken it."""
        if self._output_count is None:
            return self.tokens * self._tokens_per_event
        return self._output_count * self.tokens / max(self.tokens + self.other_tokens, 1)

    @property
    def _first_address(self) -> str:
        return self.record.decision.endpoints[0].address

    def stretches_tpot_ms(self) -> list[tuple[FeatureColumns, float]]:
        """Return the features at the start of each stretch of tokens, and its time per token, once tpot_ms is known."""
        tokens_per_event = self._choice_tokens / max(self.tokens, 1)
        return [(one.features, one.tpot_ms(tokens_per_event)) for one in self.stretches.complete()]

    def record_decision(self) -> None:
        """Keep the decision so that it can be explained, and count it. The client need not wait for this."""
        self.books.decisions.add(self.record)
        self.account.routed()

    def served_by(self, address: str) -> None:
        """Move the request to the endpoint that served it, when that isn't the first choice."""
        slot = self.books.pool.slot_of(address)
        if slot is None or slot == self.flight.slot:
            return
        if not self._was_moved:
            # The gateway got no answer from the first choice.
            self.books.pool.failures.answered(self.flight.slot, failed=True)
        self.books.pool.own_requests.finish(self.flight)
        self.flight = self.books.pool.dispatch(slot, self.parsed.request, 0.0)
        self._was_moved = True

    def response_started(self, status: int, *, is_stream: bool, now_s: float) -> bool:
        """Return whether to observe the response token by token, which the budget decides."""
        self.account.response_started(status)
        if 200 <= status < 300:
            self.books.base_model.served(self.parsed.request.model)
        self.books.pool.failures.answered(self.flight.slot, failed=status >= 500)
        # A prediction for one endpoint can't be checked on another.
        if status < 400 and is_stream and not self._was_moved:
            # An overloaded picker has no time for observations.
            self.is_observed = (not self.record.level and self._is_within_budget(now_s)) or self.books.observes_all
            self.account.response_observed(self.is_observed)
        if not self.is_observed:
            self._expect_first_token(now_s)
        return self.is_observed

    def tokens_came(self, tokens: int, now_s: float, others: int = 0, *, is_exact: bool = True) -> None:
        """Take in output tokens of an observed response, all seen at one moment. `others` are of other choices.

        Unless the counts are exact, they are counts of events.
        """
        if not tokens + others or not self.is_observed:
            return
        self._spend(tokens + others)
        if others:
            self.other_tokens += others
            self.books.pool.own_requests.generated(self.flight, others)
        if not tokens:
            return
        self.tokens += tokens
        self._is_exact = is_exact
        self.last_token_s = now_s
        if self.first_token_s is None:
            self._first_token(now_s)
        else:
            self._next_tokens(tokens, now_s)
        if self.stretches.is_due:
            self.stretches.begin(self._features_now(), self.tokens, now_s)

    def choice_ended(self, now_s: float) -> None:
        """Take in the end of a choice."""
        self._choice_ended_s = now_s

    def stream_ended(self, *, is_complete: bool) -> None:
        """Take in that the server has ended the stream of an observed response, after a whole answer or within it."""
        self.books.pool.failures.stream_ended(self.flight.slot, is_complete=is_complete)

    def tokens_counted(self, prompt: int | None, output: int | None) -> None:
        """Take in the server's own counts; None leaves what was known before."""
        self._prompt_count = prompt if prompt is not None else self._prompt_count
        self._output_count = output if output is not None else self._output_count
        if self.first_token_s is not None and (output or 0) > self.tokens + self.other_tokens:
            # A server's parser has kept tokens back, at the latest until the choice's end.
            self.last_token_s = max(self.last_token_s, self._choice_ended_s)
            self.stretches.end(self.last_token_s)

    def ended(self, now_s: float, response_bytes: int | None = None) -> None:
        """End the request's accounting, however it ended; harmless when called again.

        `response_bytes` is the size of a body that was seen whole.
        """
        if self.flight.done:
            return
        if self.is_observed:
            self._report_pace(self.last_token_s)
            self.books.budget.spend(-self._prepaid_tokens)
        self.books.pool.own_requests.finish(self.flight)
        if self.is_observed and self.tpot_ms is not None:
            self.account.generated(self.flight.slot, self.tpot_ms, self.stretches_tpot_ms())
        if self._output_count and not self._is_exact:
            self.books.event_tokens.learn(self._first_address, self._output_count, self.tokens + self.other_tokens)
        if self._prompt_count and self.parsed.tells_lengths:
            self.books.tokens.learn(self.parsed.request.model, self.parsed.kinds, self._prompt_count)
        self.account.ended((now_s - self.arrived_s) * 1000, self.output_tokens, response_bytes)
        if self.span:
            self.span.end(self.record.outcome)

    def _is_within_budget(self, now_s: float) -> bool:
        # The first responses to end are short ones, so their mean says too little.
        expected = max(self.record.decision.candidates.output_tokens, TYPICAL_OUTPUT_TOKENS)
        if not self.books.budget.take(expected, now_s):
            return False
        self._prepaid_tokens = expected
        return True

    def _spend(self, tokens: int) -> None:
        self._prepaid_tokens -= tokens
        if self._prepaid_tokens < 0:
            self.books.budget.spend(-self._prepaid_tokens)
            self._prepaid_tokens = 0.0

    def _first_token(self, now_s: float) -> None:
        self.first_token_s = now_s
        if not self._is_exact:
            self._tokens_per_event = self.books.event_tokens.of(self._first_address)
        self._pace.begin(now_s)
        ttft_ms = (now_s - self.arrived_s) * 1000
        self.books.pool.own_requests.first_token(self.flight, now_s)
        self.books.pool.own_requests.record_ttft(self.flight, ttft_ms, now_s)
        self.account.first_token(self.flight.slot, ttft_ms)
        if medians := self.record.medians:
            self.books.confidence.ttft_observed(medians[0], ttft_ms)

    def _next_tokens(self, tokens: int, now_s: float) -> None:
        self._pace.events += tokens
        if self._pace.is_due:
            self._report_pace(now_s)
        self._untold += tokens * self._tokens_per_event
        whole = int(self._untold)
        self._untold -= whole
        self.books.pool.own_requests.saw_tokens(self.flight, whole, now_s)
        self.stretches.add(tokens, now_s)

    def _report_pace(self, now_s: float) -> None:
        """Tell the pool the time of the tokens since the last report, if there were any."""
        if self._pace.events:
            time_ms, events = self._pace.take(now_s)
            tokens = events * self._tokens_per_event
            self.books.pool.own_requests.record_gap(self.flight.slot, time_ms, tokens)
            if events >= PACE_EVENTS and (medians := self.record.medians):
                self.books.confidence.tpot_observed(medians[1], time_ms / tokens)

    def _features_now(self) -> FeatureColumns:
        """Return the endpoint's load as another request would see it now, without this request's own share.

        Empty when no receiver needs the features.
        """
        if not self.books.outcomes.learns:
            return _NO_FEATURES
        candidates = self.books.pool.snapshot_beside(self.flight, self.record.prefix_score)
        return feature_columns(self.parsed.request, candidates, self.tokens)

    def _expect_first_token(self, now_s: float) -> None:
        """Assume that the first token of an unobserved response comes at the predicted or usual time."""
        predicted = self.record.predicted
        expected_ms = predicted[0] if predicted else self.books.pool.own_requests.expected_ttft_ms(self.flight)
        self.books.pool.own_requests.expect_first_token(self.flight, max(self.arrived_s + expected_ms / 1000, now_s))
