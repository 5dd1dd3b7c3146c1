"""Gradient-boosted trees by LightGBM."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnxmltools.convert import convert_lightgbm

from trainer.learners.learner import GraphPart, Model, Training
from trainer.learners.sklearn_block import without_sklearn
from trainer.learners.tree_graph import tree_ensemble
from trainer.settings import FitSettings
from trainer.wire import Matrix

with without_sklearn():
    import lightgbm as lgb


class LightgbmModel:
    """One booster of one output."""

    def __init__(self, booster: lgb.Booster) -> None:
        self.booster = booster

    @property
    def trees(self) -> int:
        return int(self.booster.num_trees())

    def predict(self, x: Matrix) -> Matrix:
        return np.asarray(self.booster.predict(x), dtype=np.float32)

    def graph(self, source: str, result: str) -> GraphPart:
        booster = _Float32Booster(model_str=self.booster.model_to_string())
        return tree_ensemble(convert_lightgbm, booster, booster.num_feature(), source, result)

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        """Return the total gain of each column's splits."""
        return dict(zip(columns, self.booster.feature_importance("gain").tolist(), strict=True))

    def intercept(self) -> None:
        return None

    def dump(self) -> bytes:
        return self.booster.model_to_string().encode()


class _Float32Booster(lgb.Booster):
    """A booster whose thresholds are rounded down to float32, the type that ONNX stores.

    Rounding to the nearest could raise a threshold to a value that a row has. The row would take the other branch.
    With a threshold rounded down, `x <= threshold` stays the same for every float32 x.
    """

    def dump_model(self, *args: Any, **options: Any) -> dict[str, Any]:
        model: dict[str, Any] = super().dump_model(*args, **options)
        pending = [tree["tree_structure"] for tree in model["tree_info"]]
        while pending:
            node = pending.pop()
            if "threshold" in node:
                node["threshold"] = _round_down(node["threshold"])
                pending += [node["left_child"], node["right_child"]]
        return model


def _round_down(value: float) -> float:
    nearest = np.float32(value)
    return float(np.nextafter(nearest, np.float32(-np.inf)) if nearest > value else nearest)


def fit(training: Training, settings: FitSettings, previous: Sequence[Model]) -> list[LightgbmModel]:
    """Fit one booster per quantile, without monotone constraints: LightGBM refuses them for quantiles."""
    models = []
    for index, quantile in enumerate(settings.targets):
        parameters = _parameters(training, settings, quantile)
        before = previous[index] if previous else None
        data = lgb.Dataset(training.x, training.y, weight=training.weights, free_raw_data=False)
        if isinstance(before, LightgbmModel):
            booster = lgb.train(parameters, data, settings.further_trees, init_model=before.booster)
        else:
            booster = lgb.train(parameters, data, settings.trees)
        models.append(LightgbmModel(booster))
    return models


def _parameters(training: Training, settings: FitSettings, quantile: float | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "objective": "regression",
        "num_leaves": min(2**settings.depth, 1024),
        "max_depth": settings.depth,
        "learning_rate": settings.learning_rate,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        # Small enough to fit the first hundred samples.
        "min_data_in_leaf": 5,
        "lambda_l1": 0.01,
        "lambda_l2": 0.1,
        "num_threads": settings.threads,
        "seed": 42,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    if quantile is not None:
        return parameters | {"objective": "quantile", "alpha": quantile}
    return parameters | ({"monotone_constraints": list(training.monotone)} if any(training.monotone) else {})
