"""The picker's own parts in virtual time: its pool, its scheduler, what it observes of responses, what it teaches."""

from dataclasses import dataclass, field

import numpy as np

from epp.pool.pool import InFlight, Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.features import FeatureColumns, feature_columns
from epp.prediction.questions import Questions
from epp.request.budget import ObservationBudget
from epp.request.stretches import PACE_EVENTS, TokenWindows
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Refusal, Scheduler
from epp.scheduling.snapshot import Endpoint, Snapshot
from lab.evaluation.replay.learning import VirtualTrainer
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Placement

# The picker's defaults: how much of what is sent it remembers, how old metrics may be, what it observes.
_PREFIX_INDEX_TOKENS = 500_000
_STALENESS_S = 2.0
OBSERVED_RESPONSES_PER_S = 50.0
OBSERVED_TOKENS_PER_S = 5000.0
# Responses are looked at every so many tokens: the ends of TokenWindows' stretches are among these.
EVERY_TOKENS = PACE_EVENTS
# A token is seen a little after the end of its step. Assumed: lognormal, half of them later than this, with this sigma.
TOKEN_DELAY_MS, TOKEN_DELAY_SIGMA = 0.3, 0.5
_MODEL = "model"


@dataclass(slots=True)
class _Followed:
    """What the picker keeps of a request until it ends; `features` only where its response is observed."""

    in_flight: InFlight
    prefix_score: float
    request: Request
    is_observed: bool = False
    features: FeatureColumns | None = None
    windows: TokenWindows = field(default_factory=TokenWindows)
    last_s: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of one placed request, in ms: the 0.9-quantile and, where there is one, the median of both latencies."""

    ttft_ms: float
    tpot_ms: float
    ttft_median_ms: float
    tpot_median_ms: float


class Picker:
    """Places by a scheduler. Metrics are as old as the last `scrape`; everything else it knows by itself.

    Requests ask for predictions, as long as `prediction_based` is true.
    """

    def __init__(
        self, endpoints: int, scheduler: Scheduler, hash_tokens: int, seed: int, trainer: VirtualTrainer | None = None
    ) -> None:
        self._now_s = 0.0
        index = PrefixIndex(max(_PREFIX_INDEX_TOKENS // hash_tokens, 1))
        self.pool = Pool(index, _STALENESS_S, clock=lambda: self._now_s)
        self.pool.replace_endpoints(Endpoint(f"endpoint-{i}", f"10.0.0.{i}:8000") for i in range(endpoints))
        self.scheduler = scheduler
        self.trainer = trainer
        self.prediction_based = True
        self.predicted: dict[int, Predicted] = {}
        self._rng = np.random.default_rng(seed)
        self._delays = np.random.default_rng((seed, 1))
        self._cluster: Cluster | None = None
        self._budget = ObservationBudget(OBSERVED_RESPONSES_PER_S, OBSERVED_TOKENS_PER_S)
        self._questions = Questions(self.pool, clock=lambda: self._now_s)
        self._followed: dict[int, _Followed] = {}
        self._decoding = [0] * endpoints
        self._steps: list[int] = []

    def attach(self, cluster: Cluster) -> None:
        """Where it sees tokens come from, without which it knows only those that it is told of."""
        self._cluster = cluster
        self._steps = [0] * len(cluster.engines)

    def scrape(self, cluster: Cluster, now_s: float) -> None:
        """Reads every endpoint's gauges; in virtual time also the moment to think of a refit."""
        self._now_s = now_s
        for slot, engine in enumerate(cluster.engines):
            self.pool.record_metrics(slot, engine.waiting, engine.running, engine.kv_usage)
        if self.trainer:
            self.trainer.refit_if_due(now_s)

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        self._now_s = now_s
        self._see_tokens(now_s)
        request = _request(arrival, self.prediction_based)
        pool = self.predict(request, self.pool.snapshot(request))
        decision = self.scheduler.schedule(request, pool, self._rng)
        if isinstance(decision, Refusal):
            return None
        return self._dispatch(arrival, request, pool, decision.chosen)

    def predict(self, request: Request, pool: Snapshot) -> Snapshot:
        """The candidates with predictions, where the scheduler wants some and there are any."""
        if self.trainer is None or not self.scheduler.wants_predictions(request):
            return pool
        columns = feature_columns(request, pool)
        question = self._questions.of(columns, pool, wants_costs=self.scheduler.wants_costs)
        predictions = self.trainer.predict(question.columns, self._now_s)
        return pool if predictions is None else self._questions.answered(question, pool, predictions)

    def _see_tokens(self, now_s: float) -> None:
        """Of the responses that are observed, the pool learns when tokens came, as if it had seen each.

        Every step brings one to all that decode, so these are the ends of the endpoints' steps, seen a little later.
        """
        if self.trainer is None or self._cluster is None:
            return
        endpoints = len(self._cluster.engines)
        delays_ms = self._delays.lognormal(np.log(TOKEN_DELAY_MS), TOKEN_DELAY_SIGMA, endpoints)
        for slot, delay_s in enumerate((delays_ms / 1000).tolist()):
            step, began_s = self._cluster.step_at(slot, now_s - delay_s)
            if self._decoding[slot] and step > self._steps[slot]:
                self.pool.saw_tokens(slot, (step - self._steps[slot]) * self._decoding[slot])
            self._steps[slot] = step
            self.pool.record_token(slot, began_s + delay_s)

    def _dispatch(self, arrival: Arrival, request: Request, pool: Snapshot, chosen: int) -> Placement:
        """Counts the request as in flight. Where its response is observed, it is looked at every so many tokens."""
        slot, score = int(pool.slots[chosen]), float(pool.prefix_score[chosen])
        in_flight = self.pool.dispatch(slot, request, score)
        followed = self._followed[arrival.index] = _Followed(in_flight, score, request)
        self._note_prediction(arrival, pool, chosen)
        if not self._budget.take(self._now_s):
            expected_ms = (
                pool.predictions.ttft_ms[chosen] if pool.predictions else self.pool.expected_ttft_ms(in_flight)
            )
            self.pool.expect_first_token(in_flight, float(expected_ms))
            return Placement(slot)
        followed.is_observed = True
        if self.trainer:
            followed.features = feature_columns(request, pool.take(np.array([chosen])))
        return Placement(slot, tuple(range(1 + EVERY_TOKENS, arrival.output_tokens, EVERY_TOKENS)))

    def first_token(self, flight: Flight, now_s: float) -> None:
        self._now_s = now_s
        followed = self._followed[flight.arrival.index]
        if not followed.is_observed:
            return
        self.pool.first_token(followed.in_flight)
        self.pool.record_ttft(followed.in_flight, flight.ttft_ms)
        followed.last_s, followed.tokens = now_s, 1
        self._decoding[flight.endpoint] += 1
        if followed.features is not None and self.trainer:
            self._teach(flight, followed.features, ttft_ms=flight.ttft_ms)
            followed.windows.begin(self._features_now(followed), 1, now_s)

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None:
        self._now_s = now_s
        followed = self._followed[flight.arrival.index]
        self._take_in(followed, tokens, now_s)
        if followed.features is not None and followed.windows.is_due:
            followed.windows.begin(self._features_now(followed), tokens, now_s)

    def ended(self, flight: Flight, now_s: float) -> None:
        self._now_s = now_s
        followed = self._followed.pop(flight.arrival.index)
        self._decoding[flight.endpoint] -= followed.is_observed
        if followed.is_observed and flight.arrival.output_tokens > 1:
            self._take_in(followed, flight.arrival.output_tokens, now_s)
            if followed.features is not None and self.trainer:
                self._teach(flight, followed.features, tpot_ms=flight.tpot_ms)
                for stretch in followed.windows.complete():
                    self._teach(flight, stretch.features, tpot_ms=stretch.tpot_ms(1.0))
        self.pool.finish(followed.in_flight)

    def _teach(self, flight: Flight, features: FeatureColumns, **latency_ms: float) -> None:
        if self.trainer:
            self.trainer.add(features, **latency_ms)
            self.pool.slowdowns.observed(flight.endpoint, features, **latency_ms)

    def _take_in(self, followed: _Followed, tokens: int, now_s: float) -> None:
        """Output tokens since the response was last looked at."""
        fresh = tokens - followed.tokens
        if fresh <= 0:
            return
        self._budget.spend(fresh)
        self.pool.record_token(followed.in_flight.slot, now_s)
        self.pool.record_gap(followed.in_flight.slot, (now_s - followed.last_s) * 1000, fresh)
        self.pool.generated(followed.in_flight, fresh)
        if followed.features is not None:
            followed.windows.add(fresh, now_s)
        followed.last_s, followed.tokens = now_s, tokens

    def _features_now(self, followed: _Followed) -> FeatureColumns:
        """The endpoint's load as another request would see it, without this request's own share."""
        pool = self.pool.snapshot_beside(followed.in_flight, followed.prefix_score)
        return feature_columns(followed.request, pool, followed.tokens)

    def _note_prediction(self, arrival: Arrival, pool: Snapshot, chosen: int) -> None:
        if pool.predictions is None:
            return
        one = pool.predictions.at(slice(chosen, chosen + 1))
        upper = one.ttft_ms, one.tpot_ms
        middle = (one.ttft_median_ms, one.tpot_median_ms)
        values = [*upper, *(high if median is None else median for high, median in zip(upper, middle, strict=True))]
        self.predicted[arrival.index] = Predicted(*(float(value[0]) for value in values))


def _request(arrival: Arrival, prediction_based: bool) -> Request:
    return Request(
        id=str(arrival.index),
        model=_MODEL,
        input_tokens=arrival.prompt_tokens,
        slo_ttft_ms=arrival.slo_ttft_ms,
        slo_tpot_ms=arrival.slo_tpot_ms,
        prediction_based=prediction_based,
        block_hashes=arrival.hashes,
    )
