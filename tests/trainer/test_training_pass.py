from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import ROW_FEATURES, ROW_NAMES, SCHEMAS, open_store
from trainer.derivation import RISING, design_matrix
from trainer.exceptions import ExportError
from trainer.export import GraphSpec, export, quantile_of
from trainer.fitting import FitSettings, fit, predict
from trainer.gate import check_not_worse, check_parity, check_rising, difference, scores
from trainer.graph import Graph
from trainer.training_pass import PassSettings, run_pass
from trainer.window import TargetData
from trainer.wire import Matrix

SETTINGS = PassSettings(FitSettings(quantile=0.5), min_samples=50, tolerance=0.1, keep_generations=3, trainer_id="t")
TTFT_NAMES = tuple(feature.name for feature in SCHEMAS["ttft"])


def make_rows(count: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, len(ROW_NAMES)), dtype=np.float32)
    for index, feature in enumerate(ROW_FEATURES):
        rows[:, index] = rng.random(count) if feature.maximum else rng.integers(0, 1000, count)
    for name in ("recent_tpot_ms", "recent_prefill_ms_per_token"):
        rows[rng.random(count) < 0.3, ROW_NAMES.index(name)] = np.nan
    return rows


def law(rows: Matrix, factor: float = 1.0) -> Matrix:
    tokens, prefix = rows[:, ROW_NAMES.index("input_token_length")], rows[:, ROW_NAMES.index("prefix_cache_score")]
    return np.asarray(factor * (20 + tokens * (1 - prefix)), dtype=np.float32)


def target(factor: float = 1.0, count: int = 3000, holdout: int = 400) -> TargetData:
    rows = make_rows(count + holdout)
    latency = law(rows, factor)
    return TargetData(rows[:count], latency[:count], rows[count:], latency[count:])


def test_a_pass_publishes_models_that_know_the_law(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    result = run_pass({"ttft": target(), "tpot": target()}, {}, store, SETTINGS)
    assert (result.outcome, result.generation) == ("published", 1)
    generation = store.current()
    assert generation
    stored = store.read(generation, "ttft")
    fresh = make_rows(300, seed=9)
    error = np.abs(Graph(stored.onnx).predict(ROW_NAMES, fresh) / law(fresh) - 1)
    assert np.median(error) < 0.1
    assert stored.manifest.holdout_scores["mdape"] < 0.1
    assert (stored.manifest.train_samples, stored.manifest.holdout_samples) == (3000, 400)


def test_too_few_samples_publish_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    result = run_pass({"ttft": target(count=10)}, {}, store, SETTINGS)
    assert (result.outcome, result.generation) == ("too_few_samples", None)
    assert store.current() is None


def test_a_worse_model_is_refused_and_the_better_target_published(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = run_pass({"ttft": target(), "tpot": target()}, {}, store, SETTINGS)
    spoilt, whole = target(), target()
    spoilt = TargetData(spoilt.train_x, spoilt.train_y[::-1].copy(), spoilt.holdout_x, spoilt.holdout_y)
    served = {name: candidate.graph for name, candidate in first.published.items()}
    second = run_pass({"ttft": spoilt, "tpot": whole}, served, store, SETTINGS)
    assert second.outcome == "published"
    assert "ttft: its mean loss" in second.reason
    generation = store.current()
    assert generation
    assert {name: ref.version for name, ref in generation.models.items()} == {"ttft": 1, "tpot": 2}


def test_a_store_that_can_not_be_written_fails_the_pass(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run_pass({"ttft": target()}, {}, open_store(str(tmp_path / "file")), SETTINGS)
    assert result.outcome == "failed"
    assert "file" in result.reason


def test_a_booster_whose_graph_differs_is_refused() -> None:
    x, y = make_rows(500)[:, :3], law(make_rows(500))
    one, other = (fit(x, y * factor, FitSettings(trees=5)) for factor in (1, 1.01))
    graph = Graph(export(one, GraphSpec(("a", "b", "c"), "out"), {}))
    answers = graph.predict(("a", "b", "c"), x)
    assert check_parity(difference(answers, predict(one, x))).passed
    verdict = check_parity(difference(answers, predict(other, x)))
    assert not verdict.passed
    assert "not float32 rounding" in verdict.reason
    assert not check_parity(difference(np.full(500, np.nan, dtype=np.float32), predict(one, x))).passed


@settings(max_examples=15, deadline=None)
@given(
    trees=st.integers(1, 40),
    depth=st.integers(1, 7),
    quantile=st.one_of(st.none(), st.floats(0.05, 0.95)),
    seed=st.integers(0, 100),
)
def test_any_graph_says_what_its_booster_says(trees: int, depth: int, quantile: float | None, seed: int) -> None:
    columns = [ROW_NAMES.index(name) for name in TTFT_NAMES]
    x = make_rows(400, seed)[:, columns]
    y = law(make_rows(400, seed))
    booster = fit(design_matrix("ttft", TTFT_NAMES, x), y, FitSettings(quantile=quantile, trees=trees, depth=depth))
    logarithms = quantile is not None
    graph = Graph(export(booster, GraphSpec(TTFT_NAMES, "ttft_ms", "ttft", floor=0.0, exponential=logarithms), {}))
    rows = make_rows(1000, seed + 1)[:, columns]
    answered = predict(booster, design_matrix("ttft", TTFT_NAMES, rows))
    expected = np.maximum(np.exp(answered) if logarithms else answered, 0)
    assert difference(graph.predict(TTFT_NAMES, rows), expected).is_rounding


def test_a_missing_value_follows_the_boosters_branch() -> None:
    x = make_rows(2000)[:, -1:]
    y = np.where(np.isnan(x[:, 0]), 500, 10).astype(np.float32)
    booster = fit(x, y, FitSettings(quantile=None, trees=30))
    graph = Graph(export(booster, GraphSpec(("recent_tpot_ms",), "out"), {}))
    answers = graph.predict(("recent_tpot_ms",), np.array([[np.nan], [50]], dtype=np.float32))
    assert answers[0] > 400
    assert answers[1] < 60


def test_boosters_that_convert_wrongly_are_refused() -> None:
    x, y = make_rows(200)[:, :2], law(make_rows(200))
    matrix = xgb.DMatrix(x, y)
    several = xgb.train({"objective": "reg:quantileerror", "quantile_alpha": [0.5, 0.9], "nthread": 1}, matrix, 2)
    with pytest.raises(ExportError, match="2 quantiles"):
        export(several, GraphSpec(("a", "b"), "out"), {})
    outputs = xgb.train({"nthread": 1}, xgb.DMatrix(x, np.column_stack((y, y))), 2)
    with pytest.raises(ExportError, match="several outputs"):
        export(outputs, GraphSpec(("a", "b"), "out"), {})


def test_the_quantile_is_read_from_the_booster() -> None:
    x, y = make_rows(200)[:, :2], law(make_rows(200))
    assert quantile_of(fit(x, y, FitSettings(quantile=0.75, trees=2))) == 0.75
    assert quantile_of(fit(x, y, FitSettings(quantile=None, trees=2))) is None


def test_a_model_by_which_a_longer_queue_is_faster_is_refused() -> None:
    names = ("num_request_waiting", "input_token_length")
    rows = np.random.default_rng(2).integers(0, 100, (200, 2)).astype(np.float32)

    def wrong(names: Sequence[str], rows: Matrix) -> Matrix:
        return np.asarray(1000 - 8 * rows[:, names.index("num_request_waiting")], dtype=np.float32)

    verdict = check_rising(wrong, names, rows, names)
    assert not verdict.passed
    assert "more num_request_waiting predicts" in verdict.reason
    assert check_rising(wrong, names, rows, ("input_token_length",)).passed


def test_the_published_ttft_rises_with_the_queue_even_when_samples_say_otherwise(tmp_path: Path) -> None:
    data = target()
    waiting = data.train_x[:, ROW_NAMES.index("num_request_waiting")]
    upside_down = TargetData(data.train_x, 2000 - waiting, data.holdout_x, data.holdout_y)
    store = open_store(str(tmp_path))
    run_pass({"ttft": upside_down}, {}, store, SETTINGS)
    generation = store.current()
    assert generation
    graph = Graph(store.read(generation, "ttft").onnx)
    assert check_rising(graph.predict, ROW_NAMES, make_rows(500), RISING["ttft"]).passed


def test_noise_is_not_taken_for_a_worse_model() -> None:
    rng = np.random.default_rng(1)
    served = rng.random(200).astype(np.float32)
    assert check_not_worse(served + rng.normal(0, 0.3, 200).astype(np.float32), served, 0.1).passed
    assert not check_not_worse(served * 2, served, 0.1).passed
    assert check_not_worse(served[:5] * 2, served[:5], 0.1).passed


def test_scores_of_a_quantile_tell_its_coverage() -> None:
    actual = np.arange(1, 101, dtype=np.float32)
    found = scores(np.full(100, 90, dtype=np.float32), actual, 0.9)
    assert found["coverage"] == 0.9
    assert "coverage" not in scores(actual, actual, None)
    assert scores(actual[:0], actual[:0], 0.9) == {}
