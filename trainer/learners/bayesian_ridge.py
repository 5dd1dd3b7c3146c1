"""scikit-learn's Bayesian ridge regression: a small, smooth linear model that estimates its own uncertainty."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from trainer.learners.learner import GraphPart, Model, Training, graph_part
from trainer.settings import FitSettings
from trainer.wire import Matrix


@dataclass(frozen=True, slots=True)
class RidgeModel:
    """A linear model of one quantile: mean + deviations * standard deviation.

    The columns are standardised, z = (x - center) / scale, and a missing value is 0. The variance of a prediction is
    noise + z covariance z' (Bishop, Pattern Recognition and Machine Learning, 3.3.2).
    """

    center: Matrix
    scale: Matrix
    coefficients: Matrix
    constant: np.float32
    covariance: Matrix
    noise: np.float32
    deviations: np.float32

    @property
    def trees(self) -> int:
        return 0

    def predict(self, x: Matrix) -> Matrix:
        z = np.where(np.isnan(x), np.float32(0), (x - self.center) / self.scale)
        spread = np.sqrt(((z @ self.covariance) * z).sum(axis=1) + self.noise)
        return np.asarray(z @ self.coefficients + self.constant + self.deviations * spread, dtype=np.float32)

    def graph(self, source: str, result: str) -> GraphPart:
        constants = {
            "center": self.center,
            "scale": self.scale,
            "zero": np.float32(0),
            "coefficients": self.coefficients[:, None],
            "constant": self.constant,
            "covariance": self.covariance,
            "noise": self.noise,
            "deviations": self.deviations,
            "columns": np.array([1], dtype=np.int64),
        }
        steps = [
            ("Sub", [source, "center"], "centered"),
            ("Div", ["centered", "scale"], "scaled"),
            ("IsNaN", [source], "missing"),
            ("Where", ["missing", "zero", "scaled"], "z"),
            ("MatMul", ["z", "coefficients"], "slope"),
            ("Add", ["slope", "constant"], "mean"),
            ("MatMul", ["z", "covariance"], "turned"),
            ("Mul", ["turned", "z"], "squares"),
            ("ReduceSum", ["squares", "columns"], "uncertainty"),
            ("Add", ["uncertainty", "noise"], "variance"),
            ("Sqrt", ["variance"], "spread"),
            ("Mul", ["spread", "deviations"], "margin"),
            ("Add", ["mean", "margin"], result),
        ]
        return graph_part(steps, constants, result, (source, result))

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        """Return the coefficients of the raw columns, in ms per unit of the column."""
        return dict(zip(columns, (self.coefficients / self.scale).tolist(), strict=True))

    def intercept(self) -> float:
        return float(self.constant - (self.coefficients * self.center / self.scale).sum())

    def dump(self) -> bytes:
        document = {"coefficients": (self.coefficients / self.scale).tolist(), "intercept": self.intercept()}
        return json.dumps(document).encode()


def fit(training: Training, settings: FitSettings, previous: Sequence[Model]) -> list[RidgeModel]:
    """Fit once; each quantile is a number of standard deviations from the mean."""
    x = training.x.astype(np.float64)
    # A column that is missing in every row has no mean. Its center is 0 and its scale 1, so it has no effect.
    present = ~np.isnan(x)
    count = np.maximum(present.sum(axis=0), 1)
    center = np.where(present, x, 0).sum(axis=0) / count
    z = np.where(present, x - center, 0)
    scale = np.sqrt((z * z).sum(axis=0) / count)
    scale[scale == 0] = 1
    ridge = BayesianRidge().fit(z / scale, training.y, training.weights)
    return [_model(ridge, center, scale, quantile) for quantile in settings.targets]


def _model(ridge: Any, center: NDArray[np.float64], scale: NDArray[np.float64], quantile: float | None) -> RidgeModel:
    return RidgeModel(
        center=center.astype(np.float32),
        scale=scale.astype(np.float32),
        coefficients=ridge.coef_.astype(np.float32),
        constant=np.float32(ridge.intercept_),
        covariance=ridge.sigma_.astype(np.float32),
        noise=np.float32(1 / ridge.alpha_),
        deviations=np.float32(0 if quantile is None else NormalDist().inv_cdf(quantile)),
    )
