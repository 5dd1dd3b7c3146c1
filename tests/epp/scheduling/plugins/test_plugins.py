import logging
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.scheduling import guard
from epp.scheduling.configuration.parameters import instantiate
from epp.scheduling.plugin import (
    Admitter,
    Filter,
    Picker,
    ProfileHandler,
    Scorer,
    plugin_types,
)
from epp.scheduling.plugins import labels, load
from epp.scheduling.plugins.lora import LoraAffinityScorer
from epp.scheduling.plugins.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from epp.scheduling.plugins.prefix import PrefixCacheScorer
from epp.scheduling.profile import Profile, WeightedScorer, run_profile
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision, Refusal, Scheduler
from epp.scheduling.snapshot import Adapters, Bools, Endpoint, Floats, Indices, Snapshot
from tests.epp.scheduling.plugins.test_slo_reference import objectives, snapshots
from tests.epp.scheduling.snapshots import build_snapshot

RNG = np.random.default_rng(1)
REQUEST = Request("1", "m", input_tokens=1000, headers={"x-tier": "gold"})


def build(type_name: str, **parameters: Any) -> Any:
    return instantiate(plugin_types()[type_name], parameters, {})


@pytest.mark.parametrize(
    ("scorer", "columns", "expected"),
    [
        (build("queue-scorer"), {"waiting": [0, 5, 10]}, [1, 0.5, 0]),
        (build("queue-scorer"), {"waiting": [7, 7, 7]}, [1, 1, 1]),
        (build("running-requests-size-scorer"), {"running": [2, 4, 3]}, [1, 0, 0.5]),
        (build("kv-cache-utilization-scorer"), {"kv_usage": [0.25, 1, 0]}, [0.75, 0, 1]),
        (build("load-aware-scorer"), {"waiting": [0, 64, 500]}, [0.5, 0.25, 0]),
        (build("load-aware-scorer", threshold=10), {"waiting": [1, 5, 10]}, [0.45, 0.25, 0]),
        (build("active-request-scorer"), {"in_flight": [0, 1, 4]}, [1, 0.75, 0]),
        (build("least-in-flight-scorer", idleThreshold=1, maxBusyScore=0.5), {"in_flight": [1, 2, 4]}, [1, 0.25, 0]),
        (build("active-request-scorer"), {"in_flight": [0, 0, 0]}, [1, 1, 1]),
        (
            build("token-load-scorer", queueThresholdTokens=4000),
            {"prefill_tokens": [0, 1000, 9000], "decode_tokens": [0, 500, 0], "prefix_score": [1, 0.5, 0]},
            [1, 0.625, 0],
        ),
        (build("prefix-cache-scorer"), {"prefix_score": [0, 0.5, 1]}, [0, 0.5, 1]),
        (build("no-hit-lru-scorer"), {"prefix_score": [0, 0.1, 0]}, [0.5, 0.5, 0.5]),
    ],
    ids=lambda value: getattr(value, "type_name", None),
)
def test_a_scorer_gives_the_expected_scores(
    scorer: Scorer, columns: dict[str, list[float]], expected: list[float]
) -> None:
    candidates = build_snapshot(3, **columns)  # type: ignore[arg-type]
    assert scorer.score(REQUEST, candidates, RNG).tolist() == pytest.approx(expected)


def test_the_matched_length_can_have_a_weight() -> None:
    scorer = PrefixCacheScorer(match_length_weight=0.5, match_length_scale_tokens=800)
    asked = Request("1", "m", block_hashes=tuple(range(50)))
    candidates = build_snapshot(2, prefix_score=[0.5, 1.0])
    # 50 blocks of 64 bytes are 800 tokens of four characters.
    assert scorer.score(asked, candidates, RNG).tolist() == pytest.approx([0.5 * 0.25 + 0.5 * 0.5, 1.0])


def test_a_loaded_adapter_is_best_then_room_then_waiting_for_it() -> None:
    candidates = build_snapshot(
        5,
        adapters=[
            Adapters(frozenset({"m"}), frozenset(), 1),
            Adapters(frozenset({"a"}), frozenset(), 2),
            Adapters(frozenset({"a"}), frozenset({"m"}), 2),
            Adapters(frozenset({"a"}), frozenset({"b"}), 2),
            Adapters(),
        ],
    )
    assert LoraAffinityScorer().score(REQUEST, candidates, RNG).tolist() == [1.0, 0.8, 0.6, 0.0, 0.0]
    assert LoraAffinityScorer().score(REQUEST, build_snapshot(2), RNG).tolist() == [0.0, 0.0]


def test_cold_prompts_go_to_the_endpoint_that_took_one_longest_ago() -> None:
    profile = Profile("p", (), (WeightedScorer("lru", load.NoHitLruScorer(), 1.0),), MaxScorePicker())
    candidates, rng = build_snapshot(4), np.random.default_rng(2)
    chosen = []
    for _ in range(8):
        result = run_profile(profile, REQUEST, candidates, rng)
        assert result is not None
        chosen.append(int(result.picked[0]))
    assert sorted(chosen[:4]) == [0, 1, 2, 3]
    assert chosen[4:] == chosen[:4]


LABELS = [{"llm-d.ai/role": "prefill", "tier": "gold"}, {"llm-d.ai/role": "decode"}, {"tier": "tin"}, {}]
SELECTOR = "label-selector-filter"


@pytest.mark.parametrize(
    ("candidate_filter", "expected"),
    [
        (build("prefill-filter"), [1, 0, 0, 0]),
        (build("decode-filter"), [0, 1, 1, 1]),
        (build("encode-filter"), [0, 0, 0, 0]),
        (build("by-label", label="tier", validValues=["gold", "tin"]), [1, 0, 1, 0]),
        (build("by-label", label="tier", validValues=["gold"], allowsNoLabel=True), [1, 1, 0, 1]),
        (build(SELECTOR), [1, 1, 1, 1]),
        (build(SELECTOR, matchLabels={"tier": "gold"}), [1, 0, 0, 0]),
        (build(SELECTOR, matchExpressions=[{"key": "tier", "operator": "Exists"}]), [1, 0, 1, 0]),
        (build(SELECTOR, matchExpressions=[{"key": "tier", "operator": "DoesNotExist"}]), [0, 1, 0, 1]),
        (build(SELECTOR, matchExpressions=[{"key": "tier", "operator": "In", "values": ["tin"]}]), [0, 0, 1, 0]),
        (build(SELECTOR, matchExpressions=[{"key": "tier", "operator": "NotIn", "values": ["tin"]}]), [1, 1, 0, 1]),
    ],
)
def test_a_label_filter_keeps_matching_endpoints(candidate_filter: Filter, expected: list[int]) -> None:
    candidates = build_snapshot(4, labels=LABELS)
    assert candidate_filter.keep(REQUEST, candidates, RNG).tolist() == [bool(kept) for kept in expected]
    view = candidates.take(np.array([3, 0]))
    assert candidate_filter.keep(REQUEST, view, RNG).tolist() == [bool(expected[3]), bool(expected[0])]
    swapped = build_snapshot(4, labels=LABELS[::-1])
    assert candidate_filter.keep(REQUEST, swapped, RNG).tolist() == [bool(kept) for kept in expected[::-1]]


def test_a_bad_selector_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="In and NotIn need some"):
        build(SELECTOR, matchExpressions=[{"key": "tier", "operator": "In"}])


def test_a_header_prefers_a_label() -> None:
    scorer = build("header-label-affinity-scorer", headerName="X-Tier", labelKey="tier")
    candidates = build_snapshot(4, labels=LABELS)
    assert scorer.score(REQUEST, candidates, RNG).tolist() == [1, 0, 0, 0]
    assert scorer.score(Request("1", "m", headers={"x-tier": "tin"}), candidates, RNG).tolist() == [0, 0, 1, 0]
    assert scorer.score(Request("1", "m"), candidates, RNG).tolist() == [0, 0, 0, 0]


def test_the_testing_filter_takes_ips_and_addresses() -> None:
    candidates = build_snapshot(4)
    for listed, expected in {
        "10.0.0.2": [2],
        "10.0.0.3, 10.0.0.1:8000,10.0.0.2:1": [1, 3],
        "[10.0.0.0]": [0],
        "": [],
    }.items():
        asked = Request("1", "m", headers={"test-epp-endpoint-selection": listed})
        assert labels.HeaderBasedTestingFilter().keep(asked, candidates, RNG).nonzero()[0].tolist() == expected
    assert not labels.HeaderBasedTestingFilter().keep(REQUEST, candidates, RNG).any()


def test_a_session_stays_where_it_was() -> None:
    scorer, candidate_filter = build("session-affinity-scorer"), build("session-affinity-filter")
    candidates = build_snapshot(3)
    (header, token), *_ = scorer.response_headers(candidates.endpoints[1]).items()
    asked = Request("1", "m", headers={header: token})
    assert header == "x-session-token"
    assert scorer.score(asked, candidates, RNG).tolist() == [0, 1, 0]
    assert candidate_filter.keep(asked, candidates, RNG).tolist() == [False, True, False]
    without = candidates.take(np.array([2, 0]))
    assert scorer.score(asked, without, RNG).tolist() == [0, 0]
    assert candidate_filter.keep(asked, without, RNG).all()


@pytest.mark.parametrize("token", ["", "!", "bm9ib2R5", "/w==", "x" * 10_000])
def test_an_unknown_session_token_prefers_no_endpoint(token: str) -> None:
    scorer = build("session-affinity-scorer", encodedEndpointHeaderConfig={"header": " X-Mine "})
    assert not scorer.score(Request("1", "m", headers={"x-mine": token}), build_snapshot(2), RNG).any()


def test_a_decision_has_the_response_headers() -> None:
    profile = Profile("p", (build("session-affinity-filter"),), (), MaxScorePicker())
    scheduler = Scheduler({"p": profile}, build("single-profile-handler"), build("prefix-cache-scorer").parameters)
    candidates = build_snapshot(3)
    decision = scheduler.schedule(REQUEST, candidates, RNG)
    assert isinstance(decision, Decision)
    again = Request("2", "m", headers=decision.response_headers)
    for _ in range(9):
        stays = scheduler.schedule(again, candidates, RNG)
        assert isinstance(stays, Decision)
        assert stays.chosen == decision.chosen


ranges = st.one_of(
    st.none(),
    st.sampled_from(["", "a-b", "7", "9-3", "-1-5", "1-2-3"]),
    st.tuples(st.integers(0, 9000), st.integers(0, 9000)).map(lambda r: f"{min(r)}-{max(r)}"),
)


@given(texts=st.lists(ranges, min_size=1, max_size=6), tokens=st.integers(0, 12_000), filtering=st.booleans())
def test_context_lengths_prefer_the_narrowest_range(texts: list[str | None], tokens: int, filtering: bool) -> None:
    key = "llm-d.ai/context-length-range"
    candidates = build_snapshot(len(texts), labels=[{} if text is None else {key: text} for text in texts])
    plugin = labels.ContextLengthAware(enable_filtering=filtering)
    asked = Request("1", "m", input_tokens=tokens)
    expected, kept = zip(*(context_score(text, tokens) for text in texts), strict=True)
    assert plugin.score(asked, candidates, RNG).tolist() == pytest.approx(expected)
    assert plugin.keep(asked, candidates, RNG).tolist() == (list(kept) if filtering else [True] * len(texts))


def context_score(text: str | None, tokens: int) -> tuple[float, bool]:
    if text is None:
        return 0.5, True
    parts = text.split("-")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[0]) > int(parts[1]):
        return 0.0, False
    low, high = map(int, parts)
    if not low <= tokens <= high:
        return 0.3 / (1 + (tokens - high if tokens > high else low - tokens) / 1000), False
    if low == high:
        return 1.0, True
    raw = 0.7 / (1 + (high - low) / 10_000) + 0.3 * (high - tokens) / (high - low)
    return 0.3 + 0.7 * raw, True


def test_the_utilization_filter_drops_endpoints_over_any_cap() -> None:
    candidates = build_snapshot(3, waiting=[0, 3, 0], kv_usage=[0.5, 0.5, 0.9])
    caps = [{"metric": "waiting-queue", "maxValue": 2}, {"metric": "kv-cache-utilization", "maxValue": 0.5}]
    assert build("utilization-filter", conditions=caps).keep(REQUEST, candidates, RNG).tolist() == [True, False, False]
    none = [{"metric": "active-requests", "maxValue": 0}, {"metric": "running-requests", "maxValue": 0}]
    busy = build_snapshot(2, in_flight=[1, 0], running=[0, 2])
    assert not build("utilization-filter", conditions=none).keep(REQUEST, busy, RNG).any()
    assert build("utilization-filter", conditions=none, fallbackOnEmpty=True).keep(REQUEST, busy, RNG).all()
    with pytest.raises(msgspec.ValidationError, match="at most 1"):
        build("utilization-filter", conditions=[{"metric": "kv-cache-utilization", "maxValue": 80}])
    with pytest.raises(msgspec.ValidationError, match="length >= 1"):
        build("utilization-filter", conditions=[])


scores_of_pickers = st.lists(st.sampled_from([0.0, 0.25, 1.0]) | st.floats(1e-9, 3), min_size=1, max_size=12)


@given(scores=scores_of_pickers, count=st.integers(1, 5), seed=st.integers(0, 99))
def test_pickers_pick_different_candidates_and_the_best_where_they_should(
    scores: list[float], count: int, seed: int
) -> None:
    rng, values = np.random.default_rng(seed), np.array(scores)
    for picker in (MaxScorePicker(count), RandomPicker(count), WeightedRandomPicker(count)):
        picked = picker.pick(values, rng).tolist()
        assert len(picked) == len(set(picked)) == min(count, len(scores))
        assert all(0 <= index < len(scores) for index in picked)
        if isinstance(picker, MaxScorePicker):
            assert [scores[index] for index in picked] == sorted(scores, reverse=True)[:count]
        if isinstance(picker, WeightedRandomPicker) and any(scores):
            assert scores[picked[0]] > 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_weighted_picker_draws_in_proportion_and_ties_fall_evenly(count: int) -> None:
    rng, scores = np.random.default_rng(9), np.array([0.0, 1.0, 3.0])
    firsts = [int(WeightedRandomPicker(count).pick(scores, rng)[0]) for _ in range(3000)]
    assert [firsts.count(index) / 3000 for index in range(3)] == pytest.approx([0, 0.25, 0.75], abs=0.03)
    ties = [int(MaxScorePicker(count).pick(np.array([1.0, 0.5, 1.0]), rng)[0]) for _ in range(1000)]
    assert set(ties) == {0, 2}
    assert 400 < ties.count(0) < 600


def every(kind: type) -> list[str]:
    return sorted({cls.type_name for cls in plugin_types().values() if issubclass(cls, kind)})


REQUIRED: dict[str, dict[str, Any]] = {
    "by-label": {"label": "tier", "validValues": ["gold"]},
    "header-label-affinity-scorer": {"headerName": "x-tier", "labelKey": "tier"},
    "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 1}]},
}


@pytest.mark.parametrize("type_name", every(Scorer))
@settings(max_examples=12)
@given(candidates=snapshots(), ttft=objectives, tpot=objectives)
def test_every_scorer_keeps_to_the_range(
    type_name: str, candidates: Snapshot, ttft: float | None, tpot: float | None
) -> None:
    scorer = build(type_name, **REQUIRED.get(type_name, {}))
    asked = Request("1", "m", slo_ttft_ms=ttft, slo_tpot_ms=tpot)
    scores = scorer.score(asked, candidates, RNG)
    assert scores.shape == (len(candidates),)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("type_name", every(Filter))
@settings(max_examples=12)
@given(candidates=snapshots(), ttft=objectives, tpot=objectives)
def test_every_filter_gives_a_mask(
    type_name: str, candidates: Snapshot, ttft: float | None, tpot: float | None
) -> None:
    candidate_filter = build(type_name, **REQUIRED.get(type_name, {}))
    asked = Request("1", "m", slo_ttft_ms=ttft, slo_tpot_ms=tpot)
    mask = candidate_filter.keep(asked, candidates, RNG)
    assert (mask.dtype, mask.shape) == (bool, (len(candidates),))


@given(candidates=snapshots(), data=st.data())
def test_a_view_of_a_view_has_the_columns_of_the_candidates_it_took(candidates: Snapshot, data: st.DataObject) -> None:
    positions = st.lists(st.integers(0, len(candidates) - 1), min_size=1, max_size=6)
    first = data.draw(positions)
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=6))
    view = candidates.take(np.array(first)).take(np.array(second))
    taken = [first[index] for index in second]
    assert len(view) == len(taken)
    assert view.whole is candidates
    assert view.prefix_score.tolist() == [candidates.prefix_score[index] for index in taken]
    assert [endpoint.name for endpoint in view.endpoints] == [candidates.endpoints[index].name for index in taken]
    assert view.predictions is not None
    assert candidates.predictions is not None
    expected = [float(candidates.predictions.ttft_ms[index]) for index in taken]
    assert view.predictions.ttft_ms.tolist() == pytest.approx(expected, nan_ok=True)
    assert view.without_predictions().predictions is None
    with pytest.raises(AttributeError):
        getattr(view, "nonsense")  # noqa: B009


class Raises(Filter, Scorer, Admitter, frozen=True):
    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        raise RuntimeError("no")

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        raise RuntimeError("no")

    def decided(self, request: Request, candidates: Snapshot, chosen: int) -> None:
        raise RuntimeError("no")

    def admit(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> str | None:
        raise RuntimeError("no")

    def response_headers(self, endpoint: Endpoint) -> dict[str, str]:
        raise RuntimeError("no")


class Older(Filter, Scorer, Admitter, frozen=True):
    """Written when the candidates were called the pool."""

    def keep(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Bools:
        return pool.waiting < 3

    def score(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> Floats:
        return pool.kv_usage

    def decided(self, request: Request, pool: Snapshot, chosen: int) -> None:
        self.__dict__["decided_for"] = pool.endpoints[chosen].name

    def admit(self, request: Request, pool: Snapshot, rng: np.random.Generator) -> str | None:
        return None if len(pool) > 1 else "too few"


def test_a_plugin_names_its_parameters_as_it_likes() -> None:
    older = Older()
    profile = Profile("p", (older,), (WeightedScorer("older", older, 1.0),), MaxScorePicker())
    handler, size = build("single-profile-handler"), build("prefix-cache-scorer").parameters
    scheduler = Scheduler({"p": profile}, handler, size, (older,))
    candidates = build_snapshot(3, waiting=[4, 0, 1], kv_usage=[0.9, 0.1, 0.5])
    decision = scheduler.schedule(REQUEST, candidates, RNG)
    assert isinstance(decision, Decision)
    assert decision.chosen == 2
    assert older.__dict__["decided_for"] == candidates.endpoints[2].name
    assert isinstance(scheduler.schedule(REQUEST, build_snapshot(1), RNG), Refusal)


class Misshapen(Filter, Scorer, Picker, ProfileHandler, frozen=True):
    answer: Any

    def keep(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Bools:
        return self.answer  # type: ignore[no-any-return]

    def score(self, request: Request, candidates: Snapshot, rng: np.random.Generator) -> Floats:
        return self.answer  # type: ignore[no-any-return]

    def pick(self, scores: Floats, rng: np.random.Generator) -> Indices:
        return self.answer  # type: ignore[no-any-return]

    def choose(self, request: Request, profiles: Any) -> str:
        raise RuntimeError("no")


BAD: list[Any] = [
    Raises(),
    *(
        Misshapen(answer)
        for answer in (None, 1.0, "x", [], np.zeros(2), np.zeros((3, 1)), np.array([9]), np.array([-1]), object())
    ),
]


# Test names without object()'s memory address: all workers of a parallel run must name the tests alike.
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad).partition(" at 0x")[0])
def test_a_plugin_that_fails_costs_no_request(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    guard.FAULTS.clear()
    picker = bad if isinstance(bad, Picker) else MaxScorePicker()
    scorers = (WeightedScorer("bad", bad, 5.0), WeightedScorer("queue", load.QueueScorer(), 1.0))
    profile = Profile("p", (bad,), scorers, picker)
    handler = bad if isinstance(bad, ProfileHandler) else build("single-profile-handler")
    admitters = (bad,) if isinstance(bad, Admitter) else ()
    scheduler = Scheduler({"p": profile}, handler, build("prefix-cache-scorer").parameters, admitters)
    with caplog.at_level(logging.ERROR, "headroom.epp"):
        for _ in range(3):
            decision = scheduler.schedule(REQUEST, build_snapshot(3, waiting=[4, 0, 4]), RNG)
            assert isinstance(decision, Decision)
            assert decision.chosen == 1
    name = type(bad).__qualname__
    assert guard.FAULTS[name] >= 6
    assert caplog.text.count(f"plugin {name} failed") == 1


@pytest.mark.parametrize("answer", [None, "nowhere", []])
def test_a_fallback_that_fails_leaves_the_wanted_profile(answer: Any) -> None:
    class Falls(ProfileHandler, frozen=True):
        def choose(self, request: Request, profiles: Any) -> str:
            return "p"

        def fallback(self, wanted: str, profiles: Any) -> str:
            if answer is None:
                raise RuntimeError("no")
            return answer  # type: ignore[no-any-return]

    profile = Profile("p", (), (WeightedScorer("latency", build("latency-scorer"), 1.0),), MaxScorePicker())
    decision = Scheduler({"p": profile}, Falls(), build("prefix-cache-scorer").parameters).schedule(
        REQUEST, build_snapshot(3, waiting=[4, 0, 4]), RNG
    )
    assert isinstance(decision, Decision)
    assert (decision.profile, decision.chosen) == ("p", 1)


def test_a_nan_score_is_0_and_the_others_count() -> None:
    guard.FAULTS.clear()
    bad = Misshapen(np.array([math.nan, 0.5, 2.0]))
    profile = Profile("p", (), (WeightedScorer("bad", bad, 1.0),), MaxScorePicker())
    result = run_profile(profile, REQUEST, build_snapshot(3), RNG)
    assert result is not None
    assert result.scores.tolist() == [0.0, 0.5, 1.0]
    assert guard.FAULTS["Misshapen"] == 1
