import numpy as np
import onnx
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import ROW_NAMES, SCHEMAS, Output
from tests.trainer.rows import law, make_rows, noisy
from trainer.derivation import design_matrix, trend_terms
from trainer.exceptions import ExportError
from trainer.export import GraphSpec, expected, export
from trainer.gate import check_parity, difference
from trainer.graph import Graph
from trainer.learners import Training, fit
from trainer.learners.xgboost_trees import XgboostModel, quantile_of
from trainer.settings import MODEL_TYPES, FitSettings
from trainer.wire import Matrix

NAMES = tuple(feature.name for feature in SCHEMAS["ttft"])
COLUMNS = [ROW_NAMES.index(name) for name in NAMES]
PLAIN = GraphSpec(("a", "b", "c"), (Output("out"),))


def as_fitted(y: Matrix, fit_settings: FitSettings) -> Matrix:
    return np.asarray(np.log(y), dtype=np.float32) if fit_settings.in_logarithms else y


@settings(max_examples=40)
@given(
    model_type=st.sampled_from(MODEL_TYPES),
    trees=st.integers(1, 40),
    depth=st.integers(1, 7),
    quantiles=st.sampled_from([(), (0.9,), (0.5, 0.9), (0.9, 0.5, 0.99)]),
    seed=st.integers(0, 100),
    has_trend=st.booleans(),
)
def test_a_graph_answers_as_its_models_do(
    model_type: str, trees: int, depth: int, quantiles: tuple[float, ...], seed: int, has_trend: bool
) -> None:
    x = make_rows(400, seed)[:, COLUMNS]
    fit_settings = FitSettings(model_type, quantiles, trees, depth)
    y = noisy(law(make_rows(400, seed)))
    weights = np.linspace(0.1, 1, 400, dtype=np.float32)
    trend = trend_terms("ttft") if has_trend else ()
    training = Training(design_matrix("ttft", NAMES, x), as_fitted(y, fit_settings), weights, trend_terms=trend)
    models = fit(training, fit_settings)
    outputs = tuple(Output(f"out_{i}", quantile=q) for i, q in enumerate(fit_settings.targets))
    spec = GraphSpec(NAMES, outputs, "ttft", floor=0.0, exponential=fit_settings.in_logarithms)
    graph = Graph(export(models, spec, {}))
    rows = make_rows(1000, seed + 1)[:, COLUMNS]
    answers = graph.outputs(NAMES, rows)
    assert answers.shape == (1000, len(outputs))
    assert difference(answers, expected(models, design_matrix("ttft", NAMES, rows), spec)).is_rounding
    assert (np.diff(answers[:, np.argsort(quantiles)], axis=1) >= 0).all(), "quantiles cross"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_both_quantiles_have_their_coverage(model_type: str) -> None:
    x = make_rows(6000)[:, COLUMNS]
    y = noisy(law(make_rows(6000)) + 200)
    fit_settings = FitSettings(model_type, (0.9, 0.5))
    training = Training(design_matrix("ttft", NAMES, x), as_fitted(y, fit_settings))
    models = fit(training, fit_settings)
    spec = GraphSpec(
        NAMES, (Output("ttft_ms", quantile=0.9), Output("ttft_p50_ms", quantile=0.5)), "ttft", 0.0,
        fit_settings.in_logarithms,
    )  # fmt: skip
    answers = Graph(export(models, spec, {})).outputs(NAMES, x)
    assert 0.86 < (y <= answers[:, 0]).mean() < 0.94
    assert 0.44 < (y <= answers[:, 1]).mean() < 0.56


def test_parity_fails_for_a_graph_of_another_booster() -> None:
    x, y = make_rows(500)[:, :3], np.asarray(np.log(law(make_rows(500))), dtype=np.float32)
    one, other = (fit(Training(x, y + np.float32(more)), FitSettings(trees=5)) for more in (0, 0.01))
    answers = Graph(export(one, PLAIN, {})).outputs(PLAIN.inputs, x)
    assert check_parity(difference(answers, expected(one, x, PLAIN))).passed
    verdict = check_parity(difference(answers, expected(other, x, PLAIN)))
    assert verdict.failed == "parity"
    assert "not float32 rounding" in verdict.reason
    assert not check_parity(difference(np.full((500, 1), np.nan, dtype=np.float32), answers)).passed


@pytest.mark.parametrize("model_type", ["xgboost", "lightgbm"])
def test_a_missing_value_follows_its_own_branch(model_type: str) -> None:
    x = make_rows(2000)[:, -1:]
    y = np.where(np.isnan(x[:, 0]), 500, 10).astype(np.float32)
    models = fit(Training(x, y), FitSettings(model_type, quantiles=(), trees=30))
    graph = Graph(export(models, GraphSpec(("recent_tpot_ms",), (Output("out"),)), {}))
    answers = graph.predict(("recent_tpot_ms",), np.array([[np.nan], [50]], dtype=np.float32))
    assert answers[0] > 400
    assert answers[1] < 60


def test_boosters_that_convert_wrongly_are_refused() -> None:
    x, y = make_rows(200)[:, :2], law(make_rows(200))
    spec = GraphSpec(("a", "b"), (Output("out"),))
    matrix = xgb.DMatrix(x, y)
    several = xgb.train({"objective": "reg:quantileerror", "quantile_alpha": [0.5, 0.9], "nthread": 1}, matrix, 2)
    with pytest.raises(ExportError, match="2 quantiles"):
        export([XgboostModel(several)], spec, {})
    outputs = xgb.train({"nthread": 1}, xgb.DMatrix(x, np.column_stack((y, y))), 2)
    with pytest.raises(ExportError, match="several outputs"):
        export([XgboostModel(outputs)], spec, {})


def test_the_quantile_is_read_from_the_booster() -> None:
    matrix = xgb.DMatrix(make_rows(200)[:, :2], law(make_rows(200)))
    quantile = xgb.train({"objective": "reg:quantileerror", "quantile_alpha": 0.75, "nthread": 1}, matrix, 2)
    assert quantile_of(quantile) == 0.75
    assert quantile_of(xgb.train({"nthread": 1}, matrix, 2)) is None


def test_a_model_file_carries_its_metadata() -> None:
    models = fit(Training(make_rows(200)[:, :3], law(make_rows(200))), FitSettings(trees=2))
    stored = onnx.load_model_from_string(export(models, PLAIN, {"model": "ttft", "inputs": "a:tokens"}))
    assert {entry.key: entry.value for entry in stored.metadata_props} == {"model": "ttft", "inputs": "a:tokens"}
