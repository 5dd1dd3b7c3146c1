"""The latency models to compare: our own plans, and the reference's features, trees and loss."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np

from lab.evaluation.studies.experiment_model import ExperimentPlan, TargetPlan, fit_target, target_matrix
from trainer.derivation import RISING, design_columns
from trainer.learners.sklearn_block import without_sklearn
from trainer.wire import Matrix

with without_sklearn():
    import xgboost as xgb

REFERENCE_COLUMNS = {
    "ttft": (
        "kv_cache_percentage",
        "input_token_length",
        "num_request_waiting",
        "num_request_running",
        "prefix_cache_score",
        "effective_input_tokens",
        "prefill_score_bucket",
    ),
    "tpot": (
        "kv_cache_percentage",
        "input_token_length",
        "num_request_waiting",
        "num_request_running",
        "num_tokens_generated",
    ),
}
# Parameters of the reference's training server. Its ordered classes of prefix scores are numbers here.
_REFERENCE = {
    "objective": "reg:quantileerror",
    "max_depth": 6,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 5,
    "gamma": 0.2,
    "alpha": 0.01,
    "lambda": 0.1,
    "tree_method": "hist",
    "seed": 42,
    "nthread": 1,
}
_REFERENCE_TREES = 200


class Predict(Protocol):
    def __call__(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Predict from `rows` [rows, plan.names]. Return the median and the upper quantile in ms, each [rows]."""


class Contender(Protocol):
    def __call__(self, target: str, rows: Matrix, y_ms: Matrix, quantile: float) -> Predict:
        """Fit a model of a target to `rows` [rows, plan.names], and return its predict function."""


def by_plan(plan: ExperimentPlan) -> Contender:
    """Return a contender with a plan's columns, derivations, trees and options. It predicts two quantiles.

    They are the median and the requested quantile.
    """

    def contend(target: str, rows: Matrix, y_ms: Matrix, quantile: float) -> Predict:
        wanted = plan.target(target)
        wanted = replace(wanted, fit=msgspec.structs.replace(wanted.fit, quantiles=(0.5, quantile)))
        fitted = fit_target(wanted, target_matrix(plan, target, rows), y_ms)

        def predict(rows: Matrix) -> tuple[Matrix, Matrix]:
            answers = fitted.predict(target_matrix(plan, target, rows))
            median, upper = np.exp(answers) if wanted.in_logarithms else np.maximum(answers, 1e-3)
            return median, np.maximum(median, upper)

        return predict

    return contend


def reference(target: str, rows: Matrix, y_ms: Matrix, quantile: float) -> Predict:
    """Fit the reference's features, trees and loss to the latency itself. Its median is a second model of this kind."""
    plan = REFERENCE_PLAN
    matrix = xgb.QuantileDMatrix(target_matrix(plan, target, rows), y_ms, nthread=1)
    median, upper = (
        xgb.train(_REFERENCE | {"quantile_alpha": share}, matrix, _REFERENCE_TREES) for share in (0.5, quantile)
    )

    def predict(rows: Matrix) -> tuple[Matrix, Matrix]:
        x = target_matrix(plan, target, rows)
        answers = [np.maximum(model.inplace_predict(x), 1e-3) for model in (median, upper)]
        return answers[0], answers[1]

    return predict


OURS = ExperimentPlan()
REFERENCE_PLAN = ExperimentPlan(ttft=TargetPlan(REFERENCE_COLUMNS["ttft"]), tpot=TargetPlan(REFERENCE_COLUMNS["tpot"]))
MEAN_FIRST = ExperimentPlan(
    ttft=TargetPlan(design_columns("ttft"), RISING["ttft"], mean_first=True, calibrating_share=0.1),
    tpot=TargetPlan(design_columns("tpot"), mean_first=True, calibrating_share=0.1),
)
CONTENDERS: Mapping[str, Contender] = {
    "ours": by_plan(OURS),
    "ours, mean first": by_plan(MEAN_FIRST),
    "reference": reference,
    "reference columns, our trees": by_plan(REFERENCE_PLAN),
}
