"""Gradient-boosted trees by XGBoost."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnxmltools.convert import convert_xgboost

from trainer.exceptions import ExportError
from trainer.learners.learner import GraphPart, Model, Training
from trainer.learners.sklearn_block import without_sklearn
from trainer.learners.tree_graph import tree_ensemble
from trainer.settings import FitSettings
from trainer.wire import Matrix

with without_sklearn():
    import xgboost as xgb


class XgboostModel:
    """One booster of one output."""

    def __init__(self, booster: xgb.Booster) -> None:
        self.booster = booster

    @property
    def trees(self) -> int:
        return int(self.booster.num_boosted_rounds())

    def predict(self, x: Matrix) -> Matrix:
        return np.asarray(self.booster.inplace_predict(x), dtype=np.float32)

    def graph(self, source: str, result: str) -> GraphPart:
        check_convertible(self.booster)
        nameless = _without_names(self.booster)
        return tree_ensemble(convert_xgboost, nameless, nameless.num_features(), source, result)

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        gains = self.booster.get_score(importance_type="gain")
        return {column: float(gains.get(f"f{index}", 0.0)) for index, column in enumerate(columns)}

    def intercept(self) -> None:
        return None

    def dump(self) -> bytes:
        return b"[" + ",".join(self.booster.get_dump(dump_format="json")).encode() + b"]"


def fit(training: Training, settings: FitSettings, previous: Sequence[Model]) -> list[XgboostModel]:
    """Fit one booster per quantile: a booster of several quantiles converts to a wrong graph without an error."""
    matrix = xgb.QuantileDMatrix(training.x, training.y, weight=training.weights, nthread=settings.threads)
    models = []
    for index, quantile in enumerate(settings.targets):
        parameters = _parameters(training, settings, quantile)
        before = previous[index] if previous else None
        if isinstance(before, XgboostModel):
            booster = xgb.train(parameters, matrix, settings.further_trees, xgb_model=before.booster)
        else:
            booster = xgb.train(parameters, matrix, settings.trees)
        models.append(XgboostModel(booster))
    return models


def _parameters(training: Training, settings: FitSettings, quantile: float | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "objective": "reg:squarederror",
        "max_depth": settings.depth,
        "eta": settings.learning_rate,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        # Small enough to fit the first hundred samples.
        "min_child_weight": 2,
        "alpha": 0.01,
        "lambda": 0.1,
        "tree_method": "hist",
        "nthread": settings.threads,
        "seed": 42,
    }
    if any(training.monotone):
        parameters["monotone_constraints"] = f"({','.join(map(str, training.monotone))})"
    if quantile is not None:
        parameters |= {"objective": "reg:quantileerror", "quantile_alpha": quantile}
    return parameters


def check_convertible(booster: xgb.Booster) -> None:
    """Raise ExportError for a booster that would convert to a wrong graph without an error."""
    learner = _learner(booster)
    alpha = json.loads(learner["objective"].get("quantile_loss_param", {}).get("quantile_alpha", "[]") or "[]")
    if isinstance(alpha, list) and len(alpha) > 1:
        raise ExportError(
            f"the model predicts {len(alpha)} quantiles at once, which converts wrongly: fit one model per quantile"
        )
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise ExportError("the model has several outputs: fit one model per output")
    if learner["gradient_booster"]["name"] != "gbtree":
        raise ExportError(f"booster {learner['gradient_booster']['name']!r} is not supported: use gbtree")
    if "c" in (booster.feature_types or []):
        raise ExportError("the model has categorical features: encode them as numbers before training")


def quantile_of(booster: xgb.Booster) -> float | None:
    """Return the quantile that the booster was fitted to, or None for a mean."""
    objective = _learner(booster)["objective"]
    if objective["name"] != "reg:quantileerror":
        return None
    alpha = json.loads(objective["quantile_loss_param"]["quantile_alpha"])
    return float(alpha[0] if isinstance(alpha, list) else alpha)


def _learner(booster: xgb.Booster) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(booster.save_config())["learner"]
    return learner


def _without_names(booster: xgb.Booster) -> xgb.Booster:
    """Return the booster without feature names: the conversion accepts only its own names (f0, f1, ...)."""
    if booster.feature_names is None:
        return booster
    nameless = booster.copy()
    nameless.feature_names = None
    return nameless
