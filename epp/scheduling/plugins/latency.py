"""Routing by headroom in steps, as llm-d's predicted-latency preset does it: a tier filter, a scorer, an admitter."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Share, Weight
from epp.scheduling.plugin import Admitter, Filter, Marker, Scorer, plugin
from epp.scheduling.plugins.headroom import (
    Headroom,
    HeadroomReader,
    HeadroomSource,
    cannot_meet,
    deficits,
    headroom,
    scale_to_unit,
)
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Snapshot

PRODUCER = "predicted-latency-producer"
_PRODUCERS = {"latencyPredictionInfoProducerName": PRODUCER}
# Below this share of KV cache in use an endpoint is cold: what is predicted for it rests on little.
_COLD_KV_USAGE = 0.02


@plugin(PRODUCER)
class PredictedLatencyProducer(HeadroomSource, Marker, frozen=True):
    """Has latencies predicted for every request; `predictInProduce: false` has them predicted for none.

    Both latencies are predicted whether `streamingMode` is on or not: they are what streamed responses showed.
    """

    predict_in_produce: bool = True
    streaming_mode: bool = False
    context_ttl: str | int = msgspec.field(name="contextTTL", default="5m")
    sampling_mean: float = 1000.0
    max_decode_token_samples_for_prediction: int = 0
    endpoint_role_label: str = ""
    use_encoder_cache_features: bool = False
    prefix_match_info_producer_name: str = ""
    in_flight_load_producer_name: str = ""
    encoder_cache_match_info_producer_name: str = ""

    unsupported: ClassVar[dict[str, str]] = {
        "endpointRoleLabel": "prefill and decode aren't disaggregated here, so no endpoint's TPOT is left out",
        "useEncoderCacheFeatures": "images and videos aren't among the features",
        "encoderCacheMatchInfoProducerName": "images and videos aren't among the features",
    }
    producers: ClassVar[dict[str, str]] = {
        "prefixMatchInfoProducerName": "approx-prefix-cache-producer",
        "inFlightLoadProducerName": "inflight-load-producer",
    }

    @property
    def needs_predictions(self) -> bool:
        return self.predict_in_produce

    @property
    def notices(self) -> Sequence[str]:
        if self.streaming_mode:
            return ()
        return ["streamingMode is off, yet TTFT and TPOT are both predicted, as streamed responses have shown them"]


@plugin("slo-headroom-tier-filter")
class SloHeadroomTierFilter(HeadroomReader, Filter, frozen=True):
    """Keeps the endpoints that are predicted to meet the objectives; with probability `epsilonExploreNeg` the others.

    All stay when they are all alike in that, or when there are no predictions. One that has no prediction while
    others have is not taken to meet them.
    """

    epsilon_explore_neg: Share = 0.01
    latency_prediction_info_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = _PRODUCERS

    @property
    def needs_predictions(self) -> bool:
        return True

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        if len(candidates) == 1 or candidates.predictions is None:
            return np.ones(len(candidates), dtype=bool)
        meets = _meets(headroom(request, candidates, candidates.predictions, self.buffer_factor))
        if meets.all() or not meets.any():
            return np.ones(len(candidates), dtype=bool)
        return ~meets if rng.random() < self.epsilon_explore_neg else meets


@plugin("latency-scorer")
class LatencyScorer(HeadroomReader, Scorer, frozen=True):
    """Scores by headroom among the endpoints that meet the objectives, or else by how little they are missed.

    When none meets them, idle endpoints alone are scored; when none is idle, those that miss TPOT alone before those
    that miss TTFT alone before those that miss both. The others get 0. Without predictions: free KV cache, short
    queue and cached prefix, with the composite weights.
    """

    ttft_weight: Weight = 0.8
    tpot_weight: Weight = 0.2
    headroom_selection_strategy: Literal["least", "most"] = "least"
    composite_kv_weight: Weight = msgspec.field(name="compositeKVWeight", default=1.0)
    composite_queue_weight: Weight = 1.0
    composite_prefix_weight: Weight = 1.0
    latency_prediction_info_producer_name: str = ""
    prefix_match_info_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = {**_PRODUCERS, "prefixMatchInfoProducerName": "approx-prefix-cache-producer"}

    @property
    def needs_predictions(self) -> bool:
        return True

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        if candidates.predictions is None:
            return self._composite(candidates)
        room = headroom(request, candidates, candidates.predictions, self.buffer_factor)
        known = ~(np.isnan(room.ttft_ms) | np.isnan(room.tpot_ms))
        if not known.any():
            return self._composite(candidates)
        meets = _meets(room)
        scores = np.zeros(len(candidates))
        if meets.any():
            chosen = np.flatnonzero(meets)
            most = self.headroom_selection_strategy == "most"
            scores[chosen] = self._within(room.ttft_ms[chosen], room.tpot_ms[chosen], most)
        else:
            chosen = np.flatnonzero(_least_missing(room, candidates.in_flight == 0, known))
            scores[chosen] = self._within(deficits(room.ttft_ms[chosen]), deficits(room.tpot_ms[chosen]), False)
        return scores

    def _within(self, ttft: Floats, tpot: Floats, most: bool) -> Floats:
        """Scores from 0.01 to 1 in steps of 0.01; a latency that tells none apart has no say."""
        scaled = [(scale_to_unit(ttft), self.ttft_weight), (scale_to_unit(tpot), self.tpot_weight)]
        telling = [(values, weight) for values, weight in scaled if values is not None]
        total = sum(weight for _, weight in telling)
        combined = np.zeros(len(ttft))
        for values, weight in telling:
            combined += weight * values
        if total > 0:
            combined /= total
        else:
            combined += telling[0][0] if telling else 0.5
        share = combined if most else 1.0 - combined
        scores: Floats = np.minimum((np.trunc(share * 100) + 1) / 100, 1.0)
        return scores

    def _composite(self, candidates: Snapshot) -> Floats:
        weights = (self.composite_kv_weight, self.composite_queue_weight, self.composite_prefix_weight)
        kv_weight, queue_weight, prefix_weight = weights if sum(weights) > 0 else (1.0, 0.0, 0.0)
        longest = candidates.waiting.max()
        queue = (longest - candidates.waiting) / longest if longest > 0 else np.ones(len(candidates))
        composite: Floats = (
            kv_weight * (1.0 - candidates.kv_usage) + queue_weight * queue + prefix_weight * candidates.prefix_score
        )
        composite /= kv_weight + queue_weight + prefix_weight
        return composite


@plugin("latency-slo-admitter")
class LatencySloAdmitter(HeadroomReader, Admitter, frozen=True):
    """Sheds a request of a priority below 0 when every endpoint is busy, warm, and predicted to miss its objectives.

    Without objectives, or with an endpoint that has no prediction, it is admitted.
    """

    latency_prediction_info_producer_name: str = ""

    producers: ClassVar[dict[str, str]] = _PRODUCERS

    @property
    def needs_predictions(self) -> bool:
        return True

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        if request.priority >= 0 or (candidates.kv_usage < _COLD_KV_USAGE).any():
            return None
        if cannot_meet(request, candidates, self.buffer_factor):
            return "no endpoint can meet the objectives, sheddable request dropped"
        return None


def _meets(room: Headroom) -> Bools:
    """Headroom of at least 0 in both; a missing prediction is no headroom."""
    meets: Bools = (room.ttft_ms >= 0) & (room.tpot_ms >= 0)
    return meets


def _least_missing(room: Headroom, idle: Bools, known: Bools) -> Bools:
    """The first of these that are any: idle, missing TPOT alone, missing TTFT alone, the rest."""
    misses_ttft, misses_tpot = room.ttft_ms < 0, room.tpot_ms < 0
    for bucket in (idle & known, ~misses_ttft & misses_tpot & known, misses_ttft & ~misses_tpot & known):
        if bucket.any():
            return bucket
    return known
