"""Endpoints that become slower than the models know: their predictions and the log lines."""

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.pool.slowdowns import Slowdowns
from epp.prediction.features import FeatureColumns, feature_columns
from epp.prediction.questions import Questions
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Endpoint, Predictions, Snapshot
from model_store import ROW_NAMES

LENGTH, RECENT_TPOT = ROW_NAMES.index("input_token_length"), ROW_NAMES.index("recent_tpot_ms")
REQUEST = Request("1", "m", input_tokens=500)
# TTFT and TPOT of an endpoint at its usual speed.
USUAL_MS = (60.0, 15.0)


def models(columns: FeatureColumns) -> Predictions:
    """Models that know endpoints at their usual speed and give the recent TPOT half the weight."""
    recent = np.nan_to_num(columns[RECENT_TPOT], nan=USUAL_MS[1])
    tpot_ms = (USUAL_MS[1] + recent) / 2
    ttft_ms = columns[LENGTH] * 0.09 + tpot_ms
    return Predictions(ttft_ms * 1.5, tpot_ms * 1.5, 1, "test", ttft_ms, tpot_ms)


@dataclass
class Rig:
    """A pool of five, each with two answers a second; `speeds` are by how much their latencies are longer."""

    now_s: float = 100.0
    speeds: dict[int, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = Pool(PrefixIndex(100), 60.0, clock=lambda: self.now_s)
        self.pool.replace_endpoints(Endpoint(f"pod-{i}", f"10.0.0.{i}:8000") for i in range(5))
        self.questions = Questions(self.pool, lambda: self.now_s)

    def decide(self) -> Snapshot:
        candidates = self.pool.snapshot(REQUEST)
        question = self.questions.build(feature_columns(REQUEST, candidates), candidates, wants_costs=True)
        return self.questions.add_predictions(question, candidates, models(question.columns))

    def run(self, seconds: int, silent: frozenset[int] = frozenset()) -> Snapshot:
        """Send traffic for this many seconds; return the candidates of the last decision."""
        for _ in range(seconds):
            self.now_s += 1.0
            for slot in self.pool.endpoints.keys() - silent:
                ttft_ms, tpot_ms = (ms * by for ms, by in zip(USUAL_MS, self.speeds.get(slot, (1.0, 1.0)), strict=True))
                for _ in range(2):
                    self.pool.own_requests.record_gap(slot, tpot_ms * 100, 100)
                    features = feature_columns(REQUEST, self.pool.snapshot_of_slot(slot, REQUEST))
                    self.pool.slowdowns.observed(slot, features, ttft_ms=ttft_ms)
                    self.pool.slowdowns.observed(slot, features, tpot_ms=tpot_ms)
            self.decide()
        return self.decide()


def tpot_medians_ms(candidates: Snapshot) -> list[float]:
    assert candidates.predictions is not None
    assert candidates.predictions.tpot_median_ms is not None
    medians_ms: list[float] = candidates.predictions.tpot_median_ms.tolist()
    return medians_ms


def test_a_halved_speed_is_predicted_before_the_models_learn_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig()
    assert tpot_medians_ms(rig.run(10)) == pytest.approx([15.0] * 5)
    rig.speeds[3] = (2.0, 2.0)
    slowed = rig.run(20)
    assert slowed.slowdown.tolist() == pytest.approx([1, 1, 1, 2, 1], rel=0.05)
    assert tpot_medians_ms(slowed) == pytest.approx([15, 15, 15, 30, 15], rel=0.05)
    assert slowed.unloaded_tpot_ms.tolist() == pytest.approx([15, 15, 15, 30, 15], rel=0.1)
    del rig.speeds[3]
    assert rig.run(30).slowdown.tolist() == [1] * 5
    first, last = (record for record in caplog.records if "latencies" in record.message)
    assert first.message.startswith("pod-3: latencies are ")
    assert last.message == "pod-3: latencies are as the models predict again"


def test_only_the_endpoint_that_models_are_wrong_about_gets_a_factor() -> None:
    rig = Rig()
    rig.pool.replace_endpoints(list(rig.pool.endpoints.values())[:2])
    rig.speeds[1] = (2.0, 2.0)
    assert rig.run(20).slowdown.tolist() == pytest.approx([1, 2], rel=0.05)


def test_one_latency_alone_or_all_endpoints_alike_give_no_factor() -> None:
    rig = Rig(speeds={1: (1.0, 2.0), 2: (3.0, 1.0)})
    assert rig.run(20).slowdown.tolist() == [1] * 5
    rig = Rig(speeds=dict.fromkeys(range(5), (2.0, 2.0)))
    assert rig.run(20).slowdown.tolist() == [1] * 5


def test_an_endpoint_without_fresh_observations_loses_its_factor() -> None:
    rig = Rig(speeds={3: (2.0, 2.0)})
    assert rig.run(20).slowdown[3] > 1.5
    assert rig.run(30, silent=frozenset({3})).slowdown.tolist() == [1] * 5


def test_a_new_endpoint_does_not_inherit_the_factor_of_its_slot() -> None:
    rig = Rig(speeds={3: (2.0, 2.0)})
    assert rig.run(20).slowdown[3] > 1.5
    rig.pool.replace_endpoints(e for slot, e in rig.pool.endpoints.items() if slot != 3)
    # A response of the removed endpoint still ends.
    rig.pool.slowdowns.observed(3, feature_columns(REQUEST, rig.pool.snapshot_of_slot(0, REQUEST)), ttft_ms=500.0)
    rig.now_s += 10.0
    rig.pool.replace_endpoints([*rig.pool.endpoints.values(), Endpoint("new", "10.0.0.9:8000")])
    assert rig.pool.slot_of("10.0.0.9:8000") == 3
    assert rig.decide().slowdown.tolist() == [1] * 5
    rig.speeds.clear()
    assert rig.run(10).slowdown.tolist() == [1] * 5


def test_the_models_get_no_evidence_while_no_endpoint_is_suspected() -> None:
    rig = Rig()
    rig.run(10)
    rig.now_s += 1.0
    candidates = rig.pool.snapshot(REQUEST)
    question = rig.questions.build(feature_columns(REQUEST, candidates), candidates, wants_costs=True)
    assert question.evidence is None
    assert question.columns.shape[1] == 15


LATENCIES_MS = st.tuples(st.floats(1e-3, 1e7), st.floats(1e-3, 1e7))


@given(st.lists(LATENCIES_MS, min_size=4, max_size=4), st.floats(0.1, 1e5))
def test_factors_stay_within_their_bounds(observed: list[tuple[float, float]], said_ms: float) -> None:
    slowdowns = Slowdowns(lambda: 0.0)
    features = np.ones((len(ROW_NAMES), 1), dtype=np.float32)
    for slot, (ttft_ms, tpot_ms) in enumerate(observed * 5):
        slowdowns.observed(slot % 4, features, ttft_ms=ttft_ms)
        slowdowns.observed(slot % 4, features, tpot_ms=tpot_ms)
    for _ in range(3):
        evidence = slowdowns.evidence(np.arange(4), np.full(4, 2.0))
        assert evidence is not None
        said = np.full(len(evidence.slots), said_ms)
        slowdowns.learn(evidence, said, said * evidence.slowdown)
        assert ((slowdowns.factors >= 0.2) & (slowdowns.factors <= 5.0)).all()
