"""Fitting one target's model."""

from dataclasses import dataclass

import numpy as np
import xgboost as xgb

from trainer.wire import Matrix


@dataclass(frozen=True, slots=True)
class FitSettings:
    """`quantile` None fits the mean. Trees and depth are a budget: each costs at every prediction of every request."""

    quantile: float | None = 0.9
    trees: int = 100
    depth: int = 6
    learning_rate: float = 0.1
    threads: int = 1

    @property
    def objective(self) -> str:
        return "mean" if self.quantile is None else "quantile"


def fit(x: Matrix, y: Matrix, settings: FitSettings) -> xgb.Booster:
    """A booster for x [rows, columns] and y [rows]; NaN in x is a missing value. Deterministic for the same rows."""
    parameters = {
        "objective": "reg:squarederror",
        "max_depth": settings.depth,
        "eta": settings.learning_rate,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 5,
        "gamma": 0.2,
        "alpha": 0.01,
        "lambda": 0.1,
        "tree_method": "hist",
        "nthread": settings.threads,
        "seed": 42,
    }
    if settings.quantile is not None:
        parameters |= {"objective": "reg:quantileerror", "quantile_alpha": settings.quantile}
    return xgb.train(parameters, xgb.QuantileDMatrix(x, y, nthread=settings.threads), settings.trees)


def predict(booster: xgb.Booster, x: Matrix) -> Matrix:
    """The booster's own answers, [rows]."""
    return np.asarray(booster.inplace_predict(x), dtype=np.float32)
