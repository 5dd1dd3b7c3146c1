"""This picker's requests in flight, as the load that they are on each endpoint, and what they show of its speed."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

import numpy as np

from epp.pool.in_flight import UNSEEN_S, InFlight
from epp.pool.progress import Progress
from epp.pool.state import OWN, PoolState
from epp.scheduling.request import Request
from epp.scheduling.snapshot import TYPICAL_OUTPUT_TOKENS, Indices, TpotSlos

(
    _DISPATCHED,
    _IN_FLIGHT,
    _PREFILLING,
    _JUST_SENT,
    _PREFILL_TOKENS,
    _DECODE_TOKENS,
    _DECODING,
    _DECODING_SINCE,
    _OBSERVED,
    _TIGHTEST_TPOT_SLO,
    _TOKEN_AT,
    _RECENT_TTFT,
    _RECENT_TOKENS_AHEAD,
    _RECENT_TPOT,
    *_,
) = range(len(OWN))
# Weight of a first token in the moving averages of prefill speed; first tokens are rare.
_FIRST_TOKEN_WEIGHT = 0.2
# Weight of one output token's time in the moving average of TPOT; output tokens are frequent.
_GAP_WEIGHT = 0.02
# Weight of one response in the moving average of output tokens.
_OUTPUT_WEIGHT = 0.02


class OwnRequests:
    """Counts each request from its dispatch to its end, in this process's rows of the pool's state.

    `in_flight` is how many there are. `output_tokens` is the recent mean of an answer's tokens.
    """

    def __init__(self, state: PoolState, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._own = state.own
        self._progress = Progress(state)
        self._flights: dict[int, set[InFlight]] = {}
        self._expected: list[tuple[float, int, InFlight]] = []
        self._order = count()
        self._just_sent: deque[tuple[float, int]] = deque()
        self.in_flight = 0
        self.output_tokens = TYPICAL_OUTPUT_TOKENS

    def sent(self, slot: int, request: Request, uncached: int) -> InFlight:
        """Count a request as sent to the endpoint, with the tokens of its prompt that aren't cached there."""
        own = self._own
        flight = InFlight(slot, request, uncached, max(uncached + int(own[_PREFILL_TOKENS, slot]), 1))
        own[_IN_FLIGHT, slot] += 1
        own[_PREFILLING, slot] += 1
        own[_DISPATCHED, slot] += 1
        own[_JUST_SENT, slot] += 1
        self._just_sent.append((self._clock() + UNSEEN_S, slot))
        own[_PREFILL_TOKENS, slot] += uncached
        self.in_flight += 1
        self._flights.setdefault(slot, set()).add(flight)
        slo_ms = request.slo_tpot_ms
        if slo_ms is not None and slo_ms < own[_TIGHTEST_TPOT_SLO, slot]:
            own[_TIGHTEST_TPOT_SLO, slot] = slo_ms
        if slo_ms is not None:
            flight.counted = self._progress.dispatched(slot, slo_ms)
        return flight

    def tpot_slos(self, slots: Indices, now_s: float) -> TpotSlos:
        """Return the TPOT objectives and the progress of the requests in flight on these endpoints."""
        return self._progress.tpot_slos(slots, now_s)

    def expect_first_token(self, flight: InFlight, at_s: float) -> None:
        """Assume that the first token of an unobserved response comes at `at_s`."""
        heapq.heappush(self._expected, (at_s, next(self._order), flight))

    def expected_ttft_ms(self, flight: InFlight) -> float:
        """Return the TTFT expected from the endpoint's recent prefill speed; 0 where no speed is known."""
        per_token_ms = self._own[_RECENT_TTFT, flight.slot] / self._own[_RECENT_TOKENS_AHEAD, flight.slot]
        return 0.0 if np.isnan(per_token_ms) else float(per_token_ms) * flight.tokens_ahead

    def first_token(self, flight: InFlight, at_s: float) -> None:
        """Move the prompt's tokens from prefill to decode."""
        if flight.done or flight.has_first_token:
            return
        flight.has_first_token = True
        own = self._own
        own[_PREFILLING, flight.slot] -= 1
        own[_PREFILL_TOKENS, flight.slot] -= flight.prefill_tokens
        flight.prefill_tokens = 0
        flight.decode_tokens += flight.request.input_tokens
        own[_DECODE_TOKENS, flight.slot] += flight.request.input_tokens
        if flight.counted:
            self._progress.first_token(flight.counted, at_s)

    def finish(self, flight: InFlight) -> None:
        """Give back the request's remaining share of the load; harmless when called again."""
        if flight.done:
            return
        flight.done = True
        slot, own = flight.slot, self._own
        self.in_flight -= 1
        flights = self._flights[slot]
        flights.discard(flight)
        own[_IN_FLIGHT, slot] -= 1
        own[_PREFILLING, slot] -= not flight.has_first_token
        own[_PREFILL_TOKENS, slot] -= flight.prefill_tokens
        own[_DECODE_TOKENS, slot] -= flight.decode_tokens
        if flight.counted:
            self._progress.ended(flight.counted)
        if (generated := flight.decode_tokens - flight.request.input_tokens) > 0:
            self.output_tokens += _OUTPUT_WEIGHT * (generated - self.output_tokens)
        own[_OBSERVED, slot] -= flight.is_observed
        if flight.decoding_since_s is not None:
            own[_DECODING, slot] -= 1
            # Sums of floats drift, so an empty sum is set to exactly 0.
            left_s = own[_DECODING_SINCE, slot] - flight.decoding_since_s
            own[_DECODING_SINCE, slot] = left_s if own[_DECODING, slot] else 0.0
        slo_ms = flight.request.slo_tpot_ms
        if slo_ms is not None and slo_ms <= own[_TIGHTEST_TPOT_SLO, slot]:
            running = (f.request.slo_tpot_ms for f in flights)
            own[_TIGHTEST_TPOT_SLO, slot] = min((ms for ms in running if ms is not None), default=np.inf)
        if not flights:
            del self._flights[slot]

    def record_ttft(self, flight: InFlight, ttft_ms: float, at_s: float) -> None:
        """Add an observed TTFT to the endpoint's recent prefill speed; the response is observed from now on."""
        if not flight.done and not flight.is_observed:
            flight.is_observed = True
            self._progress.observes(flight.slot, at_s)
        self._own[_TOKEN_AT, flight.slot] = at_s
        self._average(_RECENT_TTFT, flight.slot, ttft_ms, _FIRST_TOKEN_WEIGHT)
        self._average(_RECENT_TOKENS_AHEAD, flight.slot, flight.tokens_ahead, _FIRST_TOKEN_WEIGHT)

    def record_gap(self, slot: int, gap_ms: float, tokens: float) -> None:
        """Add the time of `tokens` further output tokens to the endpoint's recent TPOT."""
        self._average(_RECENT_TPOT, slot, gap_ms / tokens, 1 - (1 - _GAP_WEIGHT) ** tokens)

    def saw_tokens(self, flight: InFlight, tokens: int, at_s: float) -> None:
        """Count further output tokens of an observed response; `at_s` is when they came, on the pool's clock."""
        self._own[_TOKEN_AT, flight.slot] = at_s
        self._progress.observed(flight.slot, tokens, at_s)
        self.generated(flight, tokens)

    def generated(self, flight: InFlight, tokens: int) -> None:
        """Count output tokens as load of the endpoint. Those of further choices take no steps of their own."""
        if not flight.done:
            flight.decode_tokens += tokens
            self._own[_DECODE_TOKENS, flight.slot] += tokens

    def catch_up(self, now_s: float) -> None:
        """Take in what only the time tells: requests that are no longer just sent, and expected first tokens."""
        while self._just_sent and self._just_sent[0][0] <= now_s:
            _, slot = self._just_sent.popleft()
            # The slot may have been cleared for another endpoint.
            self._own[_JUST_SENT, slot] = max(self._own[_JUST_SENT, slot] - 1, 0.0)
        expected = self._expected
        while expected and expected[0][0] <= now_s:
            flight = heapq.heappop(expected)[2]
            if flight.done or flight.has_first_token:
                continue
            self.first_token(flight, now_s)
            flight.decoding_since_s = now_s
            self._own[_DECODING, flight.slot] += 1
            self._own[_DECODING_SINCE, flight.slot] += now_s

    def _average(self, row: int, slot: int, value: float, weight: float) -> None:
        known = self._own[row, slot]
        self._own[row, slot] = value if np.isnan(known) else known + weight * (value - known)
