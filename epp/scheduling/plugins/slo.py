"""Routing by headroom: what is left of a request's objectives after the predicted latencies."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from epp.scheduling.plugin import Marker, Scorer, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Floats, Indices, Predictions, Snapshot

Weight = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


@plugin("slo-request-tracker")
class SloRequestTracker(Marker, frozen=True):
    """Requests in flight and their objectives are tracked for every request; the type is known for configurations."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """Objective minus prediction, in ms and of shape [candidates]; inf where nothing is asked of a latency."""

    ttft_ms: Floats
    tpot_ms: Floats


def headroom(request: Request, pool: Snapshot, predictions: Predictions, buffer_factor: float) -> Headroom:
    """Headroom of each candidate; the TPOT limit is also that of the strictest request running there.

    A request without any objective is measured against zero, which orders candidates by predicted latency alone.
    """
    ttft_limit = np.inf if request.slo_ttft_ms is None else request.slo_ttft_ms
    own_tpot_limit = np.inf if request.slo_tpot_ms is None else request.slo_tpot_ms * buffer_factor
    tpot_limit = np.minimum(own_tpot_limit, pool.tightest_tpot_slo_ms * buffer_factor)
    if request.slo_ttft_ms is None and request.slo_tpot_ms is None:
        ttft_limit, tpot_limit = 0.0, np.zeros(len(pool))
    return Headroom(ttft_limit - predictions.ttft_ms, tpot_limit - predictions.tpot_ms)


@plugin("slo-scorer")
class SloScorer(Scorer, frozen=True):
    """Draws one endpoint by headroom and gives it score 1.

    Endpoints that meet both objectives come first, drawn by how much room they leave: `most` spreads, `least` packs,
    as the picker that this plugin is named after does unless told otherwise. Predictions of a young model are too
    rough for packing, so here the default is `most`. When no endpoint meets both objectives, idle ones come first,
    then a draw by how little each one misses.
    """

    slo_buffer_factor: Weight = 1.0
    headroom_ttft_weight: Weight = 0.8
    headroom_tpot_weight: Weight = 0.2
    neg_headroom_ttft_weight: Weight = 0.8
    neg_headroom_tpot_weight: Weight = 0.2
    headroom_selection_strategy: Literal["least", "most"] = "most"
    sticky_epsilon: Share = 0.01
    affinity_gate_tau: Share = 0.80
    affinity_gate_tau_global: Share = 0.99

    needs_predictions: ClassVar[bool] = True
    environment: ClassVar[dict[str, str]] = {
        "SLO_BUFFER_FACTOR": "sloBufferFactor",
        "HEADROOM_TTFT_WEIGHT": "headroomTtftWeight",
        "HEADROOM_TPOT_WEIGHT": "headroomTpotWeight",
        "NEG_HEADROOM_TTFT_WEIGHT": "negHeadroomTtftWeight",
        "NEG_HEADROOM_TPOT_WEIGHT": "negHeadroomTpotWeight",
        "HEADROOM_SELECTION_STRATEGY": "headroomSelectionStrategy",
        "STICKY_EPSILON": "stickyEpsilon",
        "AFFINITY_GATE_TAU": "affinityGateTau",
        "AFFINITY_GATE_TAU_GLOBAL": "affinityGateTauGlobal",
    }

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        scores = np.zeros(len(pool))
        if pool.predictions is not None:
            room = headroom(request, pool, pool.predictions, self.slo_buffer_factor)
            scores[self._choose(room, pool, rng)] = 1.0
        return scores

    def _choose(self, room: Headroom, pool: Snapshot, rng: np.random.Generator) -> int:
        kept = np.arange(len(pool))
        if rng.random() >= self.sticky_epsilon:
            kept = _gate(kept, pool.prefix_score, self.affinity_gate_tau_global)
        meets = (room.ttft_ms[kept] > 0) & (room.tpot_ms[kept] > 0)
        positive, negative = kept[meets], kept[~meets]
        explore = len(negative) > 0 and rng.random() < self.sticky_epsilon
        if len(positive) and not explore:
            return self._choose_positive(positive, room, pool, rng)
        return self._choose_negative(negative, room, pool, rng)

    def _choose_positive(self, tier: Indices, room: Headroom, pool: Snapshot, rng: np.random.Generator) -> int:
        tier = _gate(tier, pool.prefix_score, self.affinity_gate_tau)
        share = _blend(
            _normalised(room.ttft_ms[tier]),
            _normalised(room.tpot_ms[tier]),
            self.headroom_ttft_weight,
            self.headroom_tpot_weight,
        )
        if self.headroom_selection_strategy == "least":
            share = 1.0 - share
        return _draw(tier, np.floor(share * 99) + 2, rng)

    def _choose_negative(self, tier: Indices, room: Headroom, pool: Snapshot, rng: np.random.Generator) -> int:
        idle = pool.in_flight[tier] == 0
        if idle.any():
            tier = tier[idle]
        tier = _gate(tier, pool.prefix_score, self.affinity_gate_tau)
        misses_ttft, misses_tpot = room.ttft_ms[tier] < 0, room.tpot_ms[tier] < 0
        weights = np.ones(len(tier))
        for group in (misses_ttft & misses_tpot, misses_ttft & ~misses_tpot, ~misses_ttft & misses_tpot):
            weights[group] = self._deficit_weights(tier[group], room)
        return _draw(tier, weights, rng)

    def _deficit_weights(self, group: Indices, room: Headroom) -> Floats:
        deficit = _blend(
            _normalised(np.maximum(0, -room.ttft_ms[group])),
            _normalised(np.maximum(0, -room.tpot_ms[group])),
            self.neg_headroom_ttft_weight,
            self.neg_headroom_tpot_weight,
        )
        weights: Floats = np.floor((1.0 - deficit) * 80) + 2
        return weights


def _gate(candidates: Indices, prefix_score: Floats, threshold: float) -> Indices:
    """The candidates that probably hold the prompt's prefix, or all of them when none does."""
    sticky: Bools = prefix_score[candidates] >= threshold
    return candidates[sticky] if sticky.any() else candidates


def _normalised(values: Floats) -> Floats:
    """Scaled to [0, 1] over the finite values; 0.5 where they are all alike or nothing is asked."""
    finite = np.isfinite(values)
    scaled = np.full(len(values), 0.5)
    if finite.any():
        low, high = values[finite].min(), values[finite].max()
        if high - low > 1e-9:
            scaled[finite] = (values[finite] - low) / (high - low)
    return scaled


def _blend(ttft: Floats, tpot: Floats, ttft_weight: float, tpot_weight: float) -> Floats:
    if ttft_weight + tpot_weight <= 0:
        return ttft
    return (ttft_weight * ttft + tpot_weight * tpot) / (ttft_weight + tpot_weight)


def _draw(candidates: Indices, weights: Floats, rng: np.random.Generator) -> int:
    """One candidate, in proportion to its weight."""
    total = np.cumsum(weights)
    return int(candidates[np.searchsorted(total, rng.random() * total[-1], side="right")])
