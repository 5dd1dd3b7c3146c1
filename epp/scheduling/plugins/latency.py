"""The plugins of llm-d's predicted-latency preset: a producer, a tier filter, a scorer and an admitter by headroom."""

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
    headroom,
    scale_to_unit,
)
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Snapshot

PRODUCER = "predicted-latency-producer"
_PRODUCERS = {"latencyPredictionInfoProducerName": PRODUCER}
# An endpoint with less than this share of its KV cache in use is cold, and its predictions rest on little data.
_COLD_KV_USAGE = 0.02


@plugin(PRODUCER)
class PredictedLatencyProducer(HeadroomSource, Marker, frozen=True):
    """Predicts latencies for every request, or for none with `predictInProduce: false`.

    TTFT and TPOT are both predicted, as observed on streamed responses, for every value of `streamingMode`.
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
        "endpointRoleLabel": "prefill and decode aren't disaggregated here, so TPOT is predicted for every endpoint",
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
        return ["streamingMode is off, but TTFT and TPOT are both predicted, as observed on streamed responses"]


@plugin("slo-headroom-tier-filter")
class SloHeadroomTierFilter(HeadroomReader, Filter, frozen=True):
    """Keeps the endpoints predicted to meet the objectives, or the others with probability `epsilonExploreNeg`.

    Keeps all endpoints when all meet the objectives, when none does, or without predictions.
    An endpoint without a prediction counts as missing them when other endpoints have predictions.
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
    """Scores the endpoints that meet the objectives by headroom, or else one group by its distance from them.

    When no endpoint meets the objectives, only the first group that has endpoints is scored: idle endpoints, those that
    miss TPOT alone, those that miss TTFT alone, the rest. All other endpoints get 0. The nearest to both objectives
    scores highest; as in llm-d, a latency that is met counts by its distance too.
    Without predictions, the composite weights combine free KV cache, short queue and cached prefix.
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
            scores[chosen] = self._within(_distance(room.ttft_ms[chosen]), _distance(room.tpot_ms[chosen]), False)
        return scores

    def _within(self, ttft: Floats, tpot: Floats, most: bool) -> Floats:
        """Return scores from 0.01 to 1 in steps of 0.01. A latency that is equal everywhere has no weight."""
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
        return np.floor(composite * 100 + 0.5) / 100


@plugin("latency-slo-admitter")
class LatencySloAdmitter(HeadroomReader, Admitter, frozen=True):
    """Sheds a request of a priority below 0 when every endpoint is busy, warm, and predicted to miss its objectives.

    Admits a request without objectives. Admits any request when an endpoint has no prediction.
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
    """Return where the headroom of both latencies is at least 0; a missing prediction counts as no headroom."""
    meets: Bools = (room.ttft_ms >= 0) & (room.tpot_ms >= 0)
    return meets


def _distance(room_ms: Floats) -> Floats:
    """Return how far each latency is from its objective, in either direction; 0 without an objective."""
    return np.where(room_ms == np.inf, 0.0, np.abs(room_ms))


def _least_missing(room: Headroom, idle: Bools, known: Bools) -> Bools:
    """Return the first group that has members: idle, missing TPOT alone, missing TTFT alone, all that are known."""
    misses_ttft, misses_tpot = room.ttft_ms < 0, room.tpot_ms < 0
    for bucket in (idle & known, ~misses_ttft & misses_tpot & known, misses_ttft & ~misses_tpot & known):
        if bucket.any():
            return bucket
    return known
