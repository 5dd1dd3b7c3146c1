"""The vectors of slo-scorer against its formulas, written down once more for one endpoint at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.scheduling.plugins.headroom import headroom
from epp.scheduling.plugins.slo import SloScorer
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Snapshot
from tests.epp.scheduling.snapshots import build_snapshot

INF = math.inf


class Pod:
    """One endpoint, and how it stands to one request."""

    def __init__(self, candidates: Snapshot, index: int, request: Request, scorer: SloScorer) -> None:
        assert candidates.predictions is not None
        ttft, tpot = float(candidates.predictions.ttft_ms[index]), float(candidates.predictions.tpot_ms[index])
        tightest = float(candidates.tightest_tpot_slo_ms[index]) * scorer.slo_buffer_factor
        own = INF if request.slo_tpot_ms is None else request.slo_tpot_ms * scorer.slo_buffer_factor
        if request.slo_ttft_ms is None and request.slo_tpot_ms is None:
            self.ttft, self.tpot = -ttft, -tpot
        else:
            self.ttft = INF if request.slo_ttft_ms is None else request.slo_ttft_ms - ttft
            limit = min(own, tightest)
            self.tpot = INF if limit == INF else limit - tpot
        self.index = index
        self.prefix = float(candidates.prefix_score[index])
        self.idle = candidates.in_flight[index] == 0

    @property
    def positive(self) -> bool:
        return self.ttft > 0 and self.tpot > 0


def reference(scorer: SloScorer, request: Request, candidates: Snapshot) -> list[float]:
    """Return the probability with which each endpoint is drawn."""
    pods = [Pod(candidates, index, request, scorer) for index in range(len(candidates))]
    chances = [0.0] * len(pods)
    epsilon = scorer.sticky_epsilon
    for gated, gate_chance in ((True, 1 - epsilon), (False, epsilon)):
        kept = gate(pods, scorer.affinity_gate_tau_global) if gated else pods
        positive = [pod for pod in kept if pod.positive]
        negative = [pod for pod in kept if not pod.positive]
        if positive and negative:
            spread_chance(chances, positive_weights(scorer, positive), gate_chance * (1 - epsilon))
            spread_chance(chances, negative_weights(scorer, negative), gate_chance * epsilon)
        elif positive:
            spread_chance(chances, positive_weights(scorer, positive), gate_chance)
        else:
            spread_chance(chances, negative_weights(scorer, negative), gate_chance)
    return chances


def spread_chance(chances: list[float], weights: dict[int, float], chance: float) -> None:
    for index, weight in weights.items():
        chances[index] += chance * weight / sum(weights.values())


def gate(pods: list[Pod], threshold: float) -> list[Pod]:
    return [pod for pod in pods if pod.prefix >= threshold] or pods


def positive_weights(scorer: SloScorer, pods: list[Pod]) -> dict[int, float]:
    pods = gate(pods, scorer.affinity_gate_tau)
    ttft, tpot = normalised([pod.ttft for pod in pods]), normalised([pod.tpot for pod in pods])
    weights: dict[int, float] = {}
    for pod, g, h in zip(pods, ttft, tpot, strict=True):
        c = blend(g, h, scorer.headroom_ttft_weight, scorer.headroom_tpot_weight)
        share = c if scorer.headroom_selection_strategy == "most" else 1 - c
        weights[pod.index] = int(share * 99) + 2
    return weights


def negative_weights(scorer: SloScorer, pods: list[Pod]) -> dict[int, float]:
    pods = [pod for pod in pods if pod.idle] or pods
    pods = gate(pods, scorer.affinity_gate_tau)
    groups: dict[str, list[Pod]] = {"both": [], "ttft": [], "tpot": []}
    weights: dict[int, float] = {}
    for pod in pods:
        if math.isnan(pod.ttft) or math.isnan(pod.tpot) or (pod.ttft >= 0 and pod.tpot >= 0):
            weights[pod.index] = 1
        else:
            groups["both" if pod.ttft < 0 and pod.tpot < 0 else "ttft" if pod.ttft < 0 else "tpot"].append(pod)
    for group in groups.values():
        ttft = normalised([max(0.0, -pod.ttft) for pod in group])
        tpot = normalised([max(0.0, -pod.tpot) for pod in group])
        for pod, g, h in zip(group, ttft, tpot, strict=True):
            d = blend(g, h, scorer.neg_headroom_ttft_weight, scorer.neg_headroom_tpot_weight)
            weights[pod.index] = int((1 - d) * 80) + 2
    return weights


def normalised(values: Sequence[float]) -> list[float]:
    finite = [value for value in values if value < INF]
    if not finite:
        return [0.5] * len(values)
    low, high = min(finite), max(finite)
    if high - low <= 1e-9:
        return [0.5] * len(values) if len(finite) == len(values) else [float(value == INF) for value in values]
    return [1.0 if value == INF else (value - low) / (high - low) for value in values]


def blend(g: float, h: float, a: float, b: float) -> float:
    return (a * g + b * h) / (a + b) if a + b > 0 else g


def exact(scorer: SloScorer, request: Request, candidates: Snapshot) -> list[float]:
    """Return the same from the branches that the scorer's draw follows."""
    assert candidates.predictions is not None
    room = headroom(request, candidates, candidates.predictions, scorer.slo_buffer_factor)
    chances = np.zeros(len(candidates))
    epsilon = scorer.sticky_epsilon
    for gated in (True, False):
        for exploring in (True, False):
            tier, weights = scorer.branch(room, candidates, gated, exploring)
            chance = (1 - epsilon if gated else epsilon) * (epsilon if exploring else 1 - epsilon)
            chances[tier] += chance * weights / weights.sum()
    values: list[float] = chances.tolist()
    return values


shares = st.floats(0, 1)
weights = st.sampled_from([0.0, 0.2, 0.8, 1.0, 3.5])
# Some values come from a small set, so that ties and exact hits of thresholds and limits are frequent.
latencies = st.one_of(st.sampled_from([10.0, 20.0, 50.0, 400.0, 500.0, math.nan, math.inf]), st.floats(0.01, 1e5))
objectives = st.one_of(st.none(), st.sampled_from([20.0, 50.0, 500.0]), st.floats(0.1, 1e5))
scorers = st.builds(
    SloScorer,
    strategy=st.just("reference"),
    slo_buffer_factor=st.sampled_from([0.5, 1.0, 1.3]),
    headroom_ttft_weight=weights,
    headroom_tpot_weight=weights,
    neg_headroom_ttft_weight=weights,
    neg_headroom_tpot_weight=weights,
    headroom_selection_strategy=st.sampled_from(["least", "most"]),
    sticky_epsilon=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    affinity_gate_tau=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    affinity_gate_tau_global=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    size = draw(st.integers(1, 9))

    def column(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=size, max_size=size))

    return build_snapshot(
        size,
        predicted=list(zip(column(latencies), column(latencies), strict=True)),
        in_flight=column(st.sampled_from([0.0, 1.0, 3.0])),
        prefix_score=column(st.one_of(st.sampled_from([0.0, 0.5, 0.8, 0.99, 1.0]), shares)),
        tightest_tpot_slo_ms=column(st.one_of(st.just(INF), st.sampled_from([15.0, 50.0]))),
    )


@settings(max_examples=150)
@given(scorer=scorers, candidates=snapshots(), ttft=objectives, tpot=objectives)
def test_every_endpoint_is_drawn_as_often_as_the_formulas_say(
    scorer: SloScorer, candidates: Snapshot, ttft: float | None, tpot: float | None
) -> None:
    request = Request("1", "m", slo_ttft_ms=ttft, slo_tpot_ms=tpot)
    expected = reference(scorer, request, candidates)
    assert exact(scorer, request, candidates) == pytest.approx(expected, abs=1e-9)
    assert sum(expected) == pytest.approx(1)


@settings(max_examples=100)
@given(scorer=scorers, candidates=snapshots(), ttft=objectives, tpot=objectives, seed=st.integers(0, 1000))
def test_the_draw_gives_score_1_to_one_endpoint_that_can_be_drawn(
    scorer: SloScorer, candidates: Snapshot, ttft: float | None, tpot: float | None, seed: int
) -> None:
    request = Request("1", "m", slo_ttft_ms=ttft, slo_tpot_ms=tpot)
    scores = scorer.score(request, candidates, np.random.default_rng(seed))
    assert sorted(scores.tolist()) == [0.0] * (len(candidates) - 1) + [1.0]
    assert reference(scorer, request, candidates)[int(scores.argmax())] > 0


def test_the_draw_is_as_frequent_as_the_branches_say() -> None:
    candidates = build_snapshot(4, predicted=[(100, 10), (300, 30), (450, 45), (900, 90)], prefix_score=[0, 0.99, 0, 0])
    request, scorer = (
        Request("1", "m", slo_ttft_ms=500, slo_tpot_ms=50),
        SloScorer(strategy="reference", sticky_epsilon=0.3),
    )
    rng = np.random.default_rng(5)
    counts = np.zeros(4)
    for _ in range(4000):
        counts += scorer.score(request, candidates, rng)
    assert (counts / 4000).tolist() == pytest.approx(reference(scorer, request, candidates), abs=0.03)
