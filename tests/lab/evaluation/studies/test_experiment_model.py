from dataclasses import replace

import msgspec
import numpy as np
import pytest

from lab.evaluation.replay.learning import Row
from lab.evaluation.studies.experiment_model import (
    DERIVED,
    ExperimentModel,
    ExperimentModels,
    ExperimentPlan,
    TargetPlan,
    fit_target,
)
from model_store import ROW_NAMES
from tests.lab.evaluation.replay.learning_rows import candidates, learning_rows
from tests.trainer.rows import INPUT, PREFIX, law, make_rows, noisy
from trainer.derivation import design_columns, design_matrix, raw_columns
from trainer.learners import Training, fit
from trainer.settings import FitSettings
from trainer.wire import Matrix

MEAN = FitSettings(quantiles=())
QUANTILES = FitSettings(quantiles=(0.9, 0.5))


def taught(plan: ExperimentPlan, rows: list[Row], models: ExperimentModels | None = None) -> ExperimentModel:
    model = ExperimentModel(plan, models)
    for row in rows:
        model.add(*row)
    return model


def test_the_default_plan_predicts_as_the_shipped_design() -> None:
    """Compare with the trainer's design matrix and learner on the same rows, without a graph."""
    rows = learning_rows(1200)
    model = taught(ExperimentPlan(ttft=TargetPlan(design_columns("ttft"), fit=QUANTILES)), rows)
    assert model.refit_if_due(0.0)
    x = np.concatenate([features for features, ttft_ms, _ in rows if ttft_ms], axis=1).T
    y = np.array([ttft_ms for _, ttft_ms, _ in rows if ttft_ms], dtype=np.float32)

    def design(matrix: Matrix) -> Matrix:
        raw = design_columns("ttft")[:-3]
        return design_matrix("ttft", raw, raw_columns("ttft", matrix))

    fitted = fit(Training(design(x), np.log(y), None, (0,) * 15), QUANTILES)
    answers = model.predict_all(candidates(8), 1.5)
    assert answers
    upper, lower = (np.exp(one.predict(design(candidates(8).T))) for one in fitted)
    np.testing.assert_allclose(answers[0], [np.maximum(upper, lower), lower], rtol=1e-4)


def test_new_columns_can_be_learnt_and_derived_from() -> None:
    rng = np.random.default_rng(0)
    names = (*ROW_NAMES, "steps_ahead")
    plan = ExperimentPlan(
        names=names,
        derived=DERIVED | {"squared_steps": lambda columns: columns["steps_ahead"] ** 2},
        ttft=TargetPlan(("squared_steps",), rising=("squared_steps",), fit=MEAN),
        tpot=TargetPlan(("steps_ahead",), fit=MEAN, in_logarithms=False),
    )
    model = ExperimentModel(plan)
    x = np.column_stack((make_rows(1000), rng.uniform(1, 10, 1000))).astype(np.float32)
    for row in x:
        model.add(row[:, None], 10 * row[-1] ** 2, 5 * row[-1])
    assert model.refit_if_due(0.0)
    assert model.predict(x[:8].T, 1.4) is None
    predictions = model.predict(x[:8].T, 1.5)
    assert predictions
    np.testing.assert_allclose(predictions.ttft_ms, 10 * x[:8, -1] ** 2, rtol=0.15)
    np.testing.assert_allclose(predictions.tpot_ms, 5 * x[:8, -1], rtol=0.15)


def test_quantiles_are_in_order_and_do_not_cross() -> None:
    both = TargetPlan(design_columns("tpot"), fit=QUANTILES)
    model = taught(ExperimentPlan(ttft=both, tpot=both), learning_rows(900))
    model.refit_if_due(0.0)
    answers = model.predict_all(candidates(50), 2.0)
    assert answers
    for answer in answers:
        assert answer.shape == (2, 50)
        assert (answer[0] >= answer[1]).all()


def test_old_rows_can_have_less_weight() -> None:
    rows = learning_rows(1500) + learning_rows(300, seed=1, factor=3.0)
    wanted = law(candidates(200).T, 3.0)
    errors = []
    for half_life in (np.inf, 50.0):
        model = taught(ExperimentPlan(half_life_rows=half_life), rows)
        model.refit_if_due(0.0)
        predictions = model.predict(candidates(200), 2.0)
        assert predictions
        errors.append(np.median(np.abs(np.log(predictions.ttft_ms / wanted))))
    assert errors[1] < errors[0]


def test_only_the_newest_rows_are_kept() -> None:
    model = taught(ExperimentPlan(rows=150), learning_rows(600))
    assert len(model.models().rows["ttft"]) == 150 * (len(ROW_NAMES) + 1) * 4


def test_another_run_starts_from_a_runs_graph_and_rows() -> None:
    model = taught(ExperimentPlan(), learning_rows(600))
    model.refit_if_due(0.0)
    models = msgspec.msgpack.decode(msgspec.msgpack.encode(model.models()), type=ExperimentModels)
    again = ExperimentModel(ExperimentPlan(), models)
    first, second = model.predict(candidates(8), 2.0), again.predict(candidates(8), 0.0)
    assert first
    assert second
    np.testing.assert_array_equal(first.ttft_ms, second.ttft_ms)
    for row in learning_rows(120, seed=1):
        again.add(*row)
    assert again.refit_if_due(0.0)


def test_an_error_names_unknown_columns() -> None:
    with pytest.raises(ValueError, match="nor a derived one: kv_pressure, queue"):
        ExperimentPlan(tpot=TargetPlan(("queue", "num_request_waiting"), rising=("kv_pressure",)))


def test_a_rising_column_never_lowers_a_prediction() -> None:
    model = taught(
        ExperimentPlan(ttft=TargetPlan((ROW_NAMES[INPUT], ROW_NAMES[PREFIX]), (ROW_NAMES[INPUT],))), learning_rows(900)
    )
    model.refit_if_due(0.0)
    more = np.repeat(candidates(1), 20, axis=1)
    more[INPUT] = np.linspace(1, 1000, 20)
    predictions = model.predict(more, 2.0)
    assert predictions
    assert predictions.ttft_ms[-1] > 1.2 * predictions.ttft_ms[0]


def test_fitting_a_mean_first_separates_short_latencies() -> None:
    """Under a steep law with little noise, boosting an upper quantile from scratch leaves short latencies equal."""
    x = np.random.default_rng(0).uniform(0, 5, (2000, 1)).astype(np.float32)
    y_ms = noisy(np.exp(x[:, 0]))
    low = np.argsort(x[:, 0])[:200]
    errors = []
    for mean_first in (False, True):
        fitted = fit_target(TargetPlan(("x",), fit=FitSettings(quantiles=(0.9,)), mean_first=mean_first), x, y_ms)
        assert fitted.models[0].trees == 60
        errors.append(np.abs(fitted.predict(x)[0] - (x[:, 0] + 0.128))[low].mean())
    assert errors[1] < errors[0] / 2


def test_calibrated_quantiles_have_their_coverage() -> None:
    rows = learning_rows(4000)
    x = np.concatenate([features for features, _, _ in rows], axis=1).T
    y_ms = noisy(law(x), seed=1)
    target = TargetPlan(ROW_NAMES, fit=FitSettings(quantiles=(0.9, 0.5), depth=8), calibrating_share=0.2)
    covered = []
    for plan in (target, replace(target, calibrating_share=0.0)):
        upper, _ = np.exp(fit_target(plan, x[:1500], y_ms[:1500]).predict(x[1500:]))
        covered.append((y_ms[1500:] <= upper).mean())
    assert covered[0] == pytest.approx(0.9, abs=0.03)
    assert covered[1] < covered[0]


def test_the_graph_predicts_as_the_shifted_models() -> None:
    target = TargetPlan(ROW_NAMES, fit=QUANTILES, mean_first=True, calibrating_share=0.1)
    rows = learning_rows(900)
    model = taught(ExperimentPlan(ttft=target, tpot=target), rows)
    model.refit_if_due(0.0)
    x = np.concatenate([features for features, ttft_ms, _ in rows if ttft_ms], axis=1).T
    y_ms = np.array([ttft_ms for _, ttft_ms, _ in rows if ttft_ms], dtype=np.float32)
    upper, lower = np.exp(fit_target(target, x, y_ms).predict(candidates(16).T))
    answers = model.predict_all(candidates(16), 2.0)
    assert answers
    np.testing.assert_allclose(answers[0], [np.maximum(upper, lower), lower], rtol=1e-4)
