"""Routing by objectives in one scorer: by expected attainment, or as the gateway API's experimental picker does."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Factor, Share, Weight
from epp.scheduling.plugin import Admitter, Marker, Scorer, plugin
from epp.scheduling.plugins.attainment import Worth, worth
from epp.scheduling.plugins.headroom import Headroom, HeadroomReader, cannot_meet, deficits, headroom, scale_to_unit
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Indices, Predictions, Snapshot


class _Kept(NamedTuple):
    request: Request
    candidates: Snapshot
    worth: Worth


@plugin("slo-request-tracker")
class SloRequestTracker(Marker, frozen=True):
    """Accepted for compatibility: requests in flight and their objectives are always tracked."""


@plugin("slo-scorer")
class SloScorer(HeadroomReader, Scorer, frozen=True):
    """Scores by the objectives that a placement is expected to meet and to break, or draws one endpoint by headroom.

    `strategy: attainment` counts the requests, this one and those in flight, that are expected to meet their
    objectives. The best endpoint scores 1; each other endpoint scores less by the number of requests that it costs.
    A request that costs more than it gains on every endpoint is shed, if `shed` is `all` or its priority is below 0.

    `strategy: reference` draws one endpoint and gives it score 1. It draws among the endpoints that meet both
    objectives, by their headroom: `least` packs, `most` spreads. When none meets both, it draws among the idle
    endpoints, or else among all, by how little each misses. `branch` has the formulas. `sloBufferFactor` applies to
    both strategies, `shed` to attainment, and every other parameter to the reference.
    """

    strategy: Literal["attainment", "reference"] = "attainment"
    shed: Literal["sheddable", "all"] = "sheddable"
    slo_buffer_factor: Factor = 1.0
    headroom_ttft_weight: Weight = 0.8
    headroom_tpot_weight: Weight = 0.2
    neg_headroom_ttft_weight: Weight = 0.8
    neg_headroom_tpot_weight: Weight = 0.2
    headroom_selection_strategy: Literal["least", "most"] = "least"
    sticky_epsilon: Share = 0.01
    affinity_gate_tau: Share = 0.80
    affinity_gate_tau_global: Share = 0.99

    environment: ClassVar[dict[str, str]] = {
        "SLO_STRATEGY": "strategy",
        "SLO_SHED": "shed",
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

    @property
    def needs_predictions(self) -> bool:
        return True

    @property
    def notices(self) -> Sequence[str]:
        other = "reference" if self.strategy == "attainment" else "attainment"
        unused = [one.encode_name for one in _OF_STRATEGY[other] if getattr(self, one.name) != one.default]
        return [f"{', '.join(unused)}: no effect except with strategy: {other}"] if unused else ()

    @property
    def needs_costs(self) -> bool:
        return self.strategy == "attainment"

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        scores = np.zeros(len(candidates))
        if candidates.predictions is None:
            return scores
        if self.strategy == "attainment":
            return _scores(self.worth(request, candidates, candidates.predictions).total)
        room = headroom(request, candidates, candidates.predictions, self.buffer_factor)
        gated, exploring = rng.random(2) >= self.sticky_epsilon
        tier, weights = self.branch(room, candidates, bool(gated), not exploring)
        scores[_draw(tier, weights, rng)] = 1.0
        return scores

    def worth(self, request: Request, candidates: Snapshot, predictions: Predictions) -> Worth:
        """Return the expected attainment. Cached, because the admitter usually asks just before the scorer."""
        kept: _Kept | None = self.__dict__.get("kept")
        if kept is None or kept.request is not request or kept.candidates is not candidates:
            found = worth(request, candidates, predictions, self.buffer_factor)
            kept = self.__dict__["kept"] = _Kept(request, candidates, found)
        return kept.worth

    def branch(self, room: Headroom, candidates: Snapshot, gated: bool, exploring: bool) -> tuple[Indices, Floats]:
        """Return the candidates to draw from and their weights.

        `gated` limits the draw to endpoints that hold the whole prefix, if there are any. `exploring` draws an endpoint
        that misses the objectives although others meet them. `score` tosses both coins with `sticky_epsilon`.
        """
        meets = (room.ttft_ms > 0) & (room.tpot_ms > 0)
        if gated:
            held = candidates.prefix_score >= self.affinity_gate_tau_global
            if held.any():
                return self._within(
                    np.flatnonzero(held & meets), np.flatnonzero(held & ~meets), room, candidates, exploring
                )
        return self._within(np.flatnonzero(meets), np.flatnonzero(~meets), room, candidates, exploring)

    def _within(
        self, positive: Indices, negative: Indices, room: Headroom, candidates: Snapshot, exploring: bool
    ) -> tuple[Indices, Floats]:
        if len(positive) and not (exploring and len(negative)):
            tier = self._gate(positive, candidates)
            return tier, self._positive_weights(room.at(tier))
        idle = negative[candidates.in_flight[negative] == 0]
        tier = self._gate(idle if len(idle) else negative, candidates)
        return tier, self._negative_weights(room.at(tier))

    def _gate(self, tier: Indices, candidates: Snapshot) -> Indices:
        held = tier[candidates.prefix_score[tier] >= self.affinity_gate_tau]
        return held if len(held) else tier

    def _positive_weights(self, room: Headroom) -> Floats:
        share = _blend(room.ttft_ms, room.tpot_ms, self.headroom_ttft_weight, self.headroom_tpot_weight)
        if self.headroom_selection_strategy == "least":
            share = 1.0 - share
        return np.trunc(share * 99) + 2

    def _negative_weights(self, room: Headroom) -> Floats:
        """Return weights by how little is missed, scaled within each group that misses the same latencies.

        A candidate without a prediction has weight 1.
        """
        misses_ttft, misses_tpot = room.ttft_ms < 0, room.tpot_ms < 0
        groups = misses_ttft * 2 + misses_tpot
        groups[np.isnan(room.ttft_ms) | np.isnan(room.tpot_ms)] = 0
        weights = np.ones(len(groups))
        for group in (1, 2, 3):
            members = np.flatnonzero(groups == group)
            if len(members):
                weights[members] = self._deficit_weights(room.at(members))
        return weights

    def _deficit_weights(self, room: Headroom) -> Floats:
        deficit = _blend(
            deficits(room.ttft_ms),
            deficits(room.tpot_ms),
            self.neg_headroom_ttft_weight,
            self.neg_headroom_tpot_weight,
        )
        return np.trunc((1.0 - deficit) * 80) + 2


_OF_BOTH, _OF_ATTAINMENT = ("strategy", "slo_buffer_factor"), ("shed",)
_OF_STRATEGY = {
    "attainment": [one for one in msgspec.structs.fields(SloScorer) if one.name in _OF_ATTAINMENT],
    "reference": [one for one in msgspec.structs.fields(SloScorer) if one.name not in (*_OF_BOTH, *_OF_ATTAINMENT)],
}


class SloAdmitter(Admitter, frozen=True):
    """Sheds by the predictions of a slo-scorer. Each slo-scorer in a profile brings one; it can't be declared by name.

    A request of a priority below 0 is shed when every endpoint is busy and predicted to miss its objectives.
    With strategy attainment, a request is also shed when it costs more than it gains on every endpoint.
    The second rule covers requests of any priority if `shed` is `all`.
    """

    scorer: SloScorer

    type_name: ClassVar[str] = "slo-scorer"

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        scorer, sheddable = self.scorer, request.priority < 0
        if sheddable and cannot_meet(request, candidates, scorer.buffer_factor):
            return "no endpoint can meet the objectives, sheddable request dropped"
        if candidates.predictions is None or scorer.strategy != "attainment" or not (sheddable or scorer.shed == "all"):
            return None
        if scorer.worth(request, candidates, candidates.predictions).is_a_loss:
            return "more requests would miss their objectives than meet them, request dropped"
        return None


def _scores(worths: Floats) -> Floats:
    """Return 1 for the best; each other scores less by its difference in requests, at least 0. Unknown scores 0."""
    best = worths.max()
    if best == -np.inf:
        return np.zeros(len(worths))
    scores: Floats = np.maximum(1.0 - (best - worths), 0.0)
    return scores


def _blend(ttft: Floats, tpot: Floats, ttft_weight: float, tpot_weight: float) -> Floats:
    """Scale both to [0, 1] (0.5 where all are equal) and average by weight; TTFT alone when both weights are 0."""
    total = ttft_weight + tpot_weight
    if total <= 0:
        ttft_weight = total = 1.0
    blended = np.zeros(len(ttft))
    for values, weight in ((ttft, ttft_weight), (tpot, tpot_weight)):
        scaled = scale_to_unit(values)
        blended += weight * (0.5 if scaled is None else scaled)
    blended /= total
    return blended


def _draw(candidates: Indices, weights: Floats, rng: np.random.Generator) -> int:
    """Draw one candidate in proportion to the weights."""
    if len(candidates) == 1:
        return int(candidates[0])
    total = weights.cumsum()
    return int(candidates[total[:-1].searchsorted(rng.random() * total[-1], side="right")])
