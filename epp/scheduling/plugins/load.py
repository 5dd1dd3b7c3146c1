"""Scorers and a filter by load: the metrics that an endpoint reports, and this picker's requests in flight there."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Count, Share
from epp.scheduling.plugin import Filter, Marker, Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Snapshot

PRODUCER = "inflight-load-producer"
_PRODUCERS = {"inFlightLoadProducerName": PRODUCER}
_COLUMNS = {
    "active-requests": "in_flight",
    "running-requests": "running",
    "waiting-queue": "waiting",
    "kv-cache-utilization": "kv_usage",
}


@plugin("queue-scorer")
class QueueScorer(Scorer, frozen=True):
    """Prefers the shorter queue, relative to the candidates' longest and shortest; equal queues all score 1."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return _fewest(candidates.waiting)


@plugin("running-requests-size-scorer")
class RunningRequestsSizeScorer(Scorer, frozen=True):
    """Prefers the endpoint that runs fewer requests, relative to the candidates' most and fewest."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return _fewest(candidates.running)


@plugin("kv-cache-utilization-scorer")
class KvCacheUtilizationScorer(Scorer, frozen=True):
    """Prefers the emptier KV cache."""

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return 1.0 - candidates.kv_usage


@plugin("load-aware-scorer")
class LoadAwareScorer(Scorer, frozen=True):
    """Scores 0.5 for an empty queue, falling to 0 for a queue of `threshold` requests."""

    threshold: Count = 128

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return np.maximum(0.5 - candidates.waiting * (0.5 / self.threshold), 0.0)


@plugin("active-request-scorer", "least-in-flight-scorer")
class ActiveRequestScorer(Scorer, frozen=True):
    """Prefers the endpoint with fewer requests of this picker in flight, relative to the candidates' most.

    An endpoint with at most `idleThreshold` requests in flight scores 1; a busier endpoint at most `maxBusyScore`.
    """

    idle_threshold: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_busy_score: Share = 1.0
    request_timeout: str = ""
    in_flight_load_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = _PRODUCERS

    @property
    def notices(self) -> Sequence[str]:
        return ["requestTimeout has no effect: requests in flight are counted exactly"] if self.request_timeout else ()

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        in_flight = candidates.in_flight
        most = in_flight.max()
        if most <= self.idle_threshold:
            return np.ones(len(candidates))
        return np.where(in_flight <= self.idle_threshold, 1.0, (most - in_flight) * (self.max_busy_score / most))


@plugin("token-load-scorer")
class TokenLoadScorer(Scorer, frozen=True):
    """Scores 1 for no prompt tokens to compute, this request's included, falling to 0 for `queueThresholdTokens`.

    As in llm-d, the prompts of this picker's requests in flight count until their first token, without what is cached.
    Answers and the context of decoding don't count.
    """

    queue_threshold_tokens: Count = 4_194_304
    in_flight_load_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = _PRODUCERS

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        own_tokens = request.input_tokens * (1.0 - candidates.prefix_score)
        tokens = candidates.prefill_tokens + own_tokens
        return np.maximum(1.0 - tokens / self.queue_threshold_tokens, 0.0)


@plugin("no-hit-lru-scorer")
class NoHitLruScorer(Scorer, frozen=True):
    """Spreads uncached prompts: scores from 1 for the endpoint that took one longest ago down to 0 for the latest.

    Endpoints that never took an uncached prompt come first. A prompt that some candidate has cached scores 0.5
    everywhere.
    """

    lru_size: Count = 1024
    prefix_plugin_type: str = ""
    prefix_plugin_name: str = ""
    prefix_match_info_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = {"prefixMatchInfoProducerName": "approx-prefix-cache-producer"}

    @property
    def notices(self) -> Sequence[str]:
        if self.lru_size == 1024 and not (self.prefix_plugin_type or self.prefix_plugin_name):
            return ()
        return ["lruSize, prefixPluginType and prefixPluginName have no effect: every endpoint is remembered"]

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        if candidates.prefix_score.any():
            return np.full(len(candidates), 0.5)
        order = self._taken_at(candidates)[candidates.slots].argsort(kind="stable")
        scores = np.empty(len(candidates))
        scores[order] = np.linspace(1.0, 0.0, len(candidates))
        return scores

    def decided(self, request: Request, candidates: Snapshot, chosen: int) -> None:
        if not candidates.prefix_score.any():
            taken_at = self._taken_at(candidates)
            taken_at[candidates.slots[chosen]] = taken_at.max() + 1

    def _taken_at(self, candidates: Snapshot) -> Floats:
        """Return when each slot of the pool last took an uncached prompt, as a running number; 0 for never."""
        known: Floats = self.__dict__.get("taken_at", np.zeros(0))
        needed = int(candidates.slots.max()) + 1
        if len(known) < needed:
            known = self.__dict__["taken_at"] = np.concatenate([known, np.zeros(needed - len(known))])
        return known


class UtilizationCondition(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A cap on one measure of load."""

    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
    max_value: Annotated[float, msgspec.Meta(ge=0)]

    def __post_init__(self) -> None:
        if self.metric == "kv-cache-utilization" and self.max_value > 1:
            raise ValueError("maxValue of kv-cache-utilization is a share: expected at most 1")


@plugin("utilization-filter")
class UtilizationFilter(Filter, frozen=True):
    """Keeps the endpoints that exceed no condition; with `fallbackOnEmpty`, keeps all endpoints if none is left."""

    conditions: Annotated[tuple[UtilizationCondition, ...], msgspec.Meta(min_length=1)]
    fallback_on_empty: bool = False
    in_flight_load_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = _PRODUCERS

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        keep = np.ones(len(candidates), dtype=bool)
        for condition in self.conditions:
            keep &= getattr(candidates, _COLUMNS[condition.metric]) <= condition.max_value
        return np.ones(len(candidates), dtype=bool) if self.fallback_on_empty and not keep.any() else keep


@plugin(PRODUCER)
class InflightLoadProducer(Marker, frozen=True):
    """Accepted for compatibility: requests and tokens in flight are always counted, output tokens never estimated."""

    add_estimated_output_tokens: bool = False
    output_ratio: Annotated[float, msgspec.Meta(ge=0)] = 1.5
    max_estimated_output_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    prefix_match_info_producer_name: str = ""
    sync_cross_replica_state: bool = True

    unsupported: ClassVar[dict[str, str]] = {
        "addEstimatedOutputTokens": "output tokens are counted as they come, not estimated beforehand",
    }
    producers: ClassVar[dict[str, str]] = {"prefixMatchInfoProducerName": "approx-prefix-cache-producer"}


def _fewest(counts: Floats) -> Floats:
    most, fewest = counts.max(), counts.min()
    if most == fewest:
        return np.ones(len(counts))
    scores: Floats = (most - counts) / (most - fewest)
    return scores
