"""The product's own picker in virtual time: a simulated cluster's events drive it, as ext_proc's messages do elsewhere.

This driver has no rule of its own. It says what a gateway would see: when a request comes, when its response begins,
when tokens pass by, when it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from epp.exceptions import PredictionUnavailableError, RequestError
from epp.metrics import Metrics
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.prediction.features import FeatureColumns
from epp.request.budget import ObservationBudget
from epp.request.decisions import DecisionLog, Record
from epp.request.director import Director
from epp.request.outcomes import Outcomes
from epp.request.parsed import ParsedRequest
from epp.request.routed import Bookkeeping, RoutedRequest
from epp.request.stretches import PACE_EVENTS
from epp.request.tokens import TokenEstimator
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.snapshot import Endpoint, Predictions
from epp.scraping.pace import ScrapeInterval, ScrapePace
from lab.evaluation.replay.learning import VirtualTrainer
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Placement
from simulator.engine import Engine

# The picker's defaults: how much of what is sent it remembers, how old metrics may be, how much it observes.
PREFIX_INDEX_TOKENS = 500_000
STALENESS_S = 2.0
OBSERVED_RESPONSES_PER_S = 50.0
OBSERVED_TOKENS_PER_S = 5000.0
# Output tokens of an observed response after which the cluster stops, so that no stretch is overshot.
EVERY_TOKENS = PACE_EVENTS
# A token is seen a little after the end of its step. Assumed: lognormal, half of them later than this, with this sigma.
TOKEN_DELAY_MS, TOKEN_DELAY_SIGMA = 0.3, 0.5
# Seconds between two scrapes of an endpoint: the default of the gateway's own picker. Ours need not ask as often.
SCRAPE_S = 0.05
_INTERVAL = ScrapeInterval(SCRAPE_S, SCRAPE_S)
_MODEL = "model"
_OK = 200


@dataclass(frozen=True, slots=True)
class Predicted:
    """One placed request's predictions in ms: the 0.9-quantiles and, where there are any, the medians."""

    ttft_ms: float
    tpot_ms: float
    ttft_median_ms: float
    tpot_median_ms: float


@dataclass(frozen=True, slots=True)
class VirtualPredictor:
    """Answers the director as a latency client does, by the models that are in force at the moment."""

    trainer: VirtualTrainer
    clock: Callable[[], float]

    def predict(self, columns: FeatureColumns) -> Predictions:
        predictions = self.trainer.predict(columns, self.clock())
        if predictions is None:
            raise PredictionUnavailableError("there is no model yet")
        return predictions

    async def close(self) -> None: ...


def endpoints_of(count: int) -> list[Endpoint]:
    """Return the endpoints of a simulated pool, in the order of the cluster's engines."""
    return [Endpoint(f"endpoint-{number}", f"10.0.0.{number}:8000") for number in range(count)]


class Picker:
    """Places by a scheduler. Metrics are as old as the last `scrape`; everything else it observes itself.

    Requests ask for predictions, as long as `prediction_based` is true. With `observes_all`, every response is
    observed, and not only those within the budget. Endpoints are asked for metrics at the `interval`; `pages` counts
    the answers.
    """

    def __init__(
        self,
        endpoints: int,
        scheduler: Scheduler,
        hash_tokens: int,
        seed: int,
        trainer: VirtualTrainer | None = None,
        observes_all: bool = False,
        interval: ScrapeInterval = _INTERVAL,
    ) -> None:
        self._now_s = 0.0
        self.trainer = trainer
        self.prediction_based = True
        self._observes_all = observes_all
        self.predicted: dict[int, Predicted] = {}
        # With a longer interval, metrics are older without being stale.
        self._staleness_s = max(STALENESS_S, 2 * interval.most_s)
        self.director = self._director(endpoints, scheduler, hash_tokens, seed)
        self._delays = np.random.default_rng((seed, 1))
        self._cluster: Cluster | None = None
        self._engines: list[Engine] = []
        self._requests: dict[int, RoutedRequest] = {}
        # The observed requests that have their first token, by endpoint and index of the request.
        self._decoding: list[dict[int, tuple[Flight, RoutedRequest]]] = [{} for _ in range(endpoints)]
        self._steps = [0] * endpoints
        self._paces = [ScrapePace(interval) for _ in range(endpoints)]
        self.pages = 0

    def _director(self, endpoints: int, scheduler: Scheduler, hash_tokens: int, seed: int) -> Director:
        pool = Pool(PrefixIndex(max(PREFIX_INDEX_TOKENS // hash_tokens, 1)), self._staleness_s, clock=self._clock)
        pool.replace_endpoints(endpoints_of(endpoints))
        books = Bookkeeping(
            pool,
            Outcomes(Metrics(), self.trainer, pool.slowdowns if self.trainer else None),
            DecisionLog(0),
            ObservationBudget(OBSERVED_RESPONSES_PER_S, OBSERVED_TOKENS_PER_S),
            TokenEstimator(),
            observes_all=self._observes_all,
        )
        latency = VirtualPredictor(self.trainer, self._clock) if self.trainer else None
        return Director(scheduler, books, latency, rng=np.random.default_rng(seed), clock=self._clock)

    @property
    def pool(self) -> Pool:
        return self.director.books.pool

    def _clock(self) -> float:
        return self._now_s

    def attach(self, cluster: Cluster) -> None:
        """Say whose events will come, before the first one."""
        self._cluster = cluster
        self._engines = cluster.engines
        self._steps = [0] * len(self._engines)

    def scrape(self, cluster: Cluster, now_s: float) -> None:
        """Read the gauges of the endpoints that are due; this is also the moment to think of a refit."""
        self._now_s = now_s
        for slot, (engine, pace) in enumerate(zip(cluster.engines, self._paces, strict=True)):
            if pace.is_due(now_s):
                # The first round asks all. From then on, they are asked evenly over time.
                early_s = 0.0 if self.pages >= len(self._paces) else pace.seconds * slot / len(self._paces)
                own = self.pool.in_flight_on(slot)
                pace.asked(now_s - early_s, own)
                pace.page_came(engine.waiting + engine.running, own)
                self.pool.record_metrics(slot, engine.waiting, engine.running, engine.kv_usage)
                self.pages += 1
        if self.trainer:
            self.trainer.refit_if_due(now_s)

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        self._now_s = now_s
        self._see_tokens(now_s)
        try:
            routed = self.director.route(_parsed(arrival, self.prediction_based), None, now_s)
        except RequestError:
            return None
        assert isinstance(routed, RoutedRequest), "a prediction in virtual time is there at once"
        routed.record_decision()
        self._requests[arrival.index] = routed
        self._note_prediction(arrival, routed.record)
        # The servers send a stream's headers before they compute its first token.
        is_observed = routed.response_started(_OK, is_stream=True, now_s=now_s)
        marks = range(1 + EVERY_TOKENS, arrival.output_tokens, EVERY_TOKENS) if is_observed else ()
        return Placement(routed.flight.slot, tuple(marks))

    def first_token(self, flight: Flight, now_s: float) -> None:
        self._now_s = now_s
        self._bring_decoding(flight.endpoint, now_s)
        routed = self._requests[flight.arrival.index]
        routed.tokens_came(1, now_s)
        if routed.is_observed:
            self._decoding[flight.endpoint][flight.arrival.index] = flight, routed

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None:
        self._now_s = now_s
        self._bring_decoding(flight.endpoint, now_s)

    def ended(self, flight: Flight, now_s: float) -> None:
        self._now_s = now_s
        self._bring_decoding(flight.endpoint, now_s)
        self._decoding[flight.endpoint].pop(flight.arrival.index, None)
        self._requests.pop(flight.arrival.index).ended(now_s)

    def _see_tokens(self, now_s: float) -> None:
        """Bring the tokens of the endpoints' steps since the last look, each seen a little after its step's end.

        Only decisions read what they change, so a look before each decision will do.
        """
        assert self._cluster, "a picker is attached to a cluster before the first request"
        delays_ms = self._delays.lognormal(np.log(TOKEN_DELAY_MS), TOKEN_DELAY_SIGMA, len(self._decoding))
        for slot, delay_s in enumerate((delays_ms / 1000).tolist()):
            step, began_s = self._cluster.step_at(slot, now_s - delay_s)
            if step > self._steps[slot]:
                self._steps[slot] = step
                self._bring_decoding(slot, began_s + delay_s, step - 1)

    def _bring_decoding(self, slot: int, now_s: float, after_steps: int | None = None) -> None:
        """Report the tokens of an endpoint's steps that were not reported yet: one to each request that decodes.

        `after_steps` counts the endpoint's steps; all that have ended by default.
        """
        engine = self._engines[slot]
        for flight, routed in self._decoding[slot].values():
            fresh = engine.generated(flight.sequence, after_steps) - routed.tokens
            if fresh > 0:
                routed.tokens_came(fresh, now_s)

    def _note_prediction(self, arrival: Arrival, record: Record) -> None:
        predictions = record.decision.candidates.predictions
        if predictions is None:
            return
        chosen = record.decision.chosen
        one = predictions.at(slice(chosen, chosen + 1))
        upper = one.ttft_ms, one.tpot_ms
        middle = (one.ttft_median_ms, one.tpot_median_ms)
        values = [*upper, *(high if median is None else median for high, median in zip(upper, middle, strict=True))]
        self.predicted[arrival.index] = Predicted(*(float(value[0]) for value in values))


def _parsed(arrival: Arrival, prediction_based: bool) -> ParsedRequest:
    request = Request(
        id=str(arrival.index),
        model=_MODEL,
        input_tokens=arrival.prompt_tokens,
        slo_ttft_ms=arrival.slo_ttft_ms,
        slo_tpot_ms=arrival.slo_tpot_ms,
        prediction_based=prediction_based,
        block_hashes=arrival.hashes,
    )
    return ParsedRequest(request, _MODEL, is_exact=True)
