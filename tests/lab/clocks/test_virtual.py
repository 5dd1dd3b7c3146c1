"""Figures of the comparison, and phases in virtual time; without Envoy."""

import numpy as np
import pytest

from epp.prediction.features import FeatureColumns
from epp.prediction.wire import LengthSource
from lab.clocks import virtual
from lab.clocks.predicting import PredictionOutcome, from_decision, prediction_quality
from lab.evaluation.policies.picker import Predicted
from lab.evaluation.replay.learning import LearningSettings, VirtualTrainer
from lab.loop.load import OfferedLoad, shorten
from lab.loop.policies import phases
from model_store import ROW_NAMES
from simulator.workloads import WORKLOADS

SPEED, PHASE_S = 0.5, 8.0


def decision(upper_ms: float, median_ms: float | None, observed_ms: float) -> dict[str, object]:
    predicted = {"ttft_ms": upper_ms, "tpot_ms": upper_ms}
    if median_ms is not None:
        predicted |= {"ttft_median_ms": median_ms, "tpot_median_ms": median_ms}
    return {"predicted": predicted, "outcome": {"ttft_ms": observed_ms, "tpot_ms": None}}


def test_errors_use_the_median_and_coverage_uses_the_quantile() -> None:
    found = prediction_quality([from_decision(decision(110, 90, observed)) for observed in (75, 100, 120)])
    assert found.share == 100
    assert found.ttft_mdape == 20
    assert found.ttft_coverage == 66.7
    # No TPOT was observed.
    assert found.tpot_mdape is found.tpot_coverage is None


def test_without_a_median_errors_use_the_quantile() -> None:
    assert prediction_quality([from_decision(decision(110, None, 100))]).ttft_mdape == 10


def test_decisions_without_predictions_lower_the_share_only() -> None:
    none = from_decision({"predicted": None, "outcome": {"ttft_ms": 100, "tpot_ms": 10}})
    some = PredictionOutcome(Predicted(100, 10, 100, 10), 100, 10)
    found = prediction_quality([none, none, none, some])
    assert found.share == 25
    assert found.ttft_mdape == 0
    assert prediction_quality([none]).ttft_mdape is None


def test_the_picker_observes_each_token_in_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[FeatureColumns, float]] = []

    class Noting(VirtualTrainer):
        def add(
            self,
            features: FeatureColumns,
            ttft_ms: float = 0.0,
            tpot_ms: float = 0.0,
            length_source: LengthSource = "estimate",
        ) -> None:
            rows.append((features, tpot_ms))

    monkeypatch.setattr(virtual, "VirtualTrainer", Noting)
    workload = shorten(WORKLOADS["azure-conversation"].on("h100-llama-3.1-8b"))
    load = OfferedLoad(workload, 0.5 * workload.typical_rps * SPEED, SPEED)
    policies = phases(["default"], load)
    virtual.run_story_virtually(load, policies, phase_s=PHASE_S, seed=1, learning=LearningSettings())
    tpot_ms = np.median([tpot_ms for _, tpot_ms in rows if tpot_ms])
    middle = len(rows) // 2
    for part in (rows[:middle], rows[middle:]):
        since_ms = np.concatenate([features[ROW_NAMES.index("ms_since_token")] for features, _ in part])
        # The time since the last token is about one step. It isn't the time since the last of the picker's marks, which
        # come every 32 tokens.
        assert np.nanquantile(since_ms, 0.9) < 1.5 * tpot_ms


def test_the_warm_up_uses_no_predictions() -> None:
    workload = shorten(WORKLOADS["azure-conversation"].on("h100-llama-3.1-8b"))
    load = OfferedLoad(workload, 0.5 * workload.typical_rps * SPEED, SPEED)
    learning = LearningSettings(interval_s=1.0, delay_s=0.0, min_samples=20, min_new_rows=1)
    results = virtual.run_story_virtually(load, phases(["slo"], load), phase_s=PHASE_S, seed=1, learning=learning)
    assert not results["warm-up"].predicted
    assert len(results["slo"].predicted) == len(results["slo"].flights)
