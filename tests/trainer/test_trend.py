import numpy as np
import pytest

from model_store import ROW_NAMES
from tests.trainer.rows import INPUT, PREFIX, law, make_rows, noisy, rows_of
from trainer.fitter import Fitter
from trainer.graph import Graph
from trainer.job import Job
from trainer.learners import Training
from trainer.learners.trend import fit_trend
from trainer.settings import FitSettings, JobSettings
from trainer.window import Rows, TargetData, no_rows
from trainer.wire import Matrix

MEDIAN = JobSettings(FitSettings(quantiles=(0.5,)), trainer_id="t")


def training(x: Matrix, latency_ms: Matrix) -> Training:
    """Return data whose trend may take both columns."""
    return Training(x, np.log(latency_ms), trend_terms=((0,), (1,)))


def two_columns(count: int) -> Matrix:
    return np.random.default_rng(0).uniform(0, 100, (count, 2)).astype(np.float32)


def trend_law(x: Matrix) -> Matrix:
    return np.asarray(20 + 3 * x[:, 0], dtype=np.float32)


def test_a_trend_is_found_in_a_hundred_rows() -> None:
    x = two_columns(100)
    found = fit_trend(training(x, noisy(trend_law(x))))
    assert found.constant == pytest.approx(20, rel=0.2)
    assert found.weights == pytest.approx([3, 0], abs=0.2)


def test_a_minority_of_wrong_rows_hardly_moves_a_trend() -> None:
    x = two_columns(200)
    wrong = np.where(np.arange(200) % 5 == 0, np.float32(1e6), np.float32(1))
    found = fit_trend(training(x, trend_law(x) * wrong))
    ratio = np.exp(found.logarithms(x)) / trend_law(x)
    assert 0.9 < ratio.min() <= ratio.max() < 1.5


def test_a_part_of_a_term_has_its_own_weight_once_many_rows_show_it() -> None:
    terms = ((0, 1), (0,))
    few, many = (fit_trend(Training(x, np.log(trend_law(x)), trend_terms=terms)) for x in map(two_columns, (20, 5000)))
    assert few.weights[1] > 0.5
    assert many.weights == pytest.approx([3, 0], abs=0.1)


def test_missing_values_and_equal_latencies_have_a_trend() -> None:
    x = np.full((100, 2), np.nan, dtype=np.float32)
    found = fit_trend(training(x, np.full(100, 30, dtype=np.float32)))
    assert np.exp(found.logarithms(x)) == pytest.approx(30, rel=0.01)
    assert found.logarithms(np.zeros((1, 2), dtype=np.float32)) == pytest.approx(np.log(30), abs=0.01)


def test_a_model_of_short_prompts_predicts_long_ones() -> None:
    short, long = make_rows(300), make_rows(300, seed=1)
    short[:, INPUT] %= 300
    long[:, INPUT], long[:, PREFIX] = 900, 0
    data: Rows = rows_of(short, noisy(law(short)))
    learnt = Fitter().learn(Job({"ttft": TargetData(data, no_rows())}, MEDIAN))[0]
    predicted_ms = Graph(learnt.onnx).predict(ROW_NAMES, long)
    # Trees alone answer with the latency of a prompt of 300 tokens, which is a third.
    assert np.median(np.abs(predicted_ms / law(long) - 1)) < 0.1
