"""Fitting one target's model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb

from trainer.wire import Matrix


@dataclass(frozen=True, slots=True)
class FitSettings:
    """`quantile` None fits the mean. Trees and depth are a budget: each costs at every prediction of every request."""

    quantile: float | None = 0.9
    trees: int = 60
    depth: int = 4
    learning_rate: float = 0.2
    threads: int = 1

    @property
    def objective(self) -> str:
        return "mean" if self.quantile is None else "quantile"

    @property
    def in_logarithms(self) -> bool:
        """Quantiles are fitted to the logarithm, where an error of a tenth weighs alike for 20 ms and for 20 s.

        A quantile of the logarithm is the logarithm of the quantile; of a mean that isn't true.
        """
        return self.quantile is not None


def fit(x: Matrix, y: Matrix, settings: FitSettings, monotone: Sequence[int] = ()) -> xgb.Booster:
    """A booster for x [rows, columns] and y [rows] above 0; NaN in x is a missing value. The same rows, the same trees.

    It predicts the logarithm of y where `settings.in_logarithms`. `monotone` has 1 for each column along which the
    prediction may only rise, and 0 for the others.
    """
    parameters: dict[str, Any] = {
        "objective": "reg:squarederror",
        "max_depth": settings.depth,
        "eta": settings.learning_rate,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        # Small enough for the first hundred samples, from which the first model has to be learnt.
        "min_child_weight": 2,
        "alpha": 0.01,
        "lambda": 0.1,
        "tree_method": "hist",
        "nthread": settings.threads,
        "seed": 42,
    }
    if any(monotone):
        parameters["monotone_constraints"] = f"({','.join(map(str, monotone))})"
    if settings.quantile is not None:
        parameters |= {"objective": "reg:quantileerror", "quantile_alpha": settings.quantile}
    target = np.log(y) if settings.in_logarithms else y
    return xgb.train(parameters, xgb.QuantileDMatrix(x, target, nthread=settings.threads), settings.trees)


def predict(booster: xgb.Booster, x: Matrix) -> Matrix:
    """The booster's own answers, [rows]."""
    return np.asarray(booster.inplace_predict(x), dtype=np.float32)


def importances(booster: xgb.Booster, columns: Sequence[str]) -> dict[str, float]:
    """The mean gain of each column's splits; 0 for one that no tree asks."""
    gains = booster.get_score(importance_type="gain")
    return {column: float(gains.get(f"f{index}", 0.0)) for index, column in enumerate(columns)}
