"""The trend of a latency: a sum of terms that grow with the load. Trees then learn the latency's ratio to its trend.

Trees know only the loads that they have seen, and answer beyond them as at their edge. So a placement that loads an
endpoint more than any before would look free. A sum of terms goes on rising, and a hundred rows are enough for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from trainer.learners.learner import GraphPart, Learner, Model, Training, graph_part
from trainer.settings import FitSettings
from trainer.wire import Matrix

# Rounds of the fit. Each weighs the rows by the trend of the round before.
_ROUNDS = 8
# Rows further than this factor from the trend count as if they were so far.
_FURTHEST = 1.5
# The share of the rows' own variance that is added to each term's, so that terms which rise together share the weight.
_RIDGE = 1e-3
# Rows that a term must outweigh if it is a part of another one.
_ROWS_TO_SHOW = 50.0
# Least trend, as a share of the median latency.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend is `constant` plus `weights` [columns] times the columns, in ms. `usual` replaces missing values."""

    constant: np.float32
    weights: Matrix
    usual: Matrix

    def logarithms(self, x: Matrix) -> Matrix:
        """Return the trend's logarithm for x [rows, columns]."""
        return np.asarray(np.log(_filled(x, self.usual) @ self.weights + self.constant), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class ModelOnTrend:
    """A model of the logarithm of a latency, as the sum of the trend's and of `ratio`'s."""

    trend: Trend
    ratio: Model

    @property
    def trees(self) -> int:
        return self.ratio.trees

    def predict(self, x: Matrix) -> Matrix:
        return self.ratio.predict(x) + self.trend.logarithms(x)

    def graph(self, source: str, result: str) -> GraphPart:
        of_ratio = f"{result}_ratio"
        ratio = self.ratio.graph(source, of_ratio)
        constants = {"usual": self.trend.usual, "weights": self.trend.weights[:, None], "constant": self.trend.constant}
        steps = [
            ("IsNaN", [source], "missing"),
            ("Where", ["missing", "usual", source], "known"),
            ("MatMul", ["known", "weights"], "slope"),
            ("Add", ["slope", "constant"], "sum"),
            ("Log", ["sum"], "logarithm"),
            ("Add", ["logarithm", of_ratio], result),
        ]
        # All quantiles share one trend, so its nodes are named alike in each of their parts.
        trend = graph_part(steps, constants, "trend", (source, of_ratio, result))
        return GraphPart(ratio.nodes + trend.nodes, ratio.constants + trend.constants)

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        return self.ratio.importances(columns)

    def intercept(self) -> float | None:
        return self.ratio.intercept()

    def dump(self) -> bytes:
        return self.ratio.dump()


def fit_on_trend(
    learner: Learner, training: Training, settings: FitSettings, previous: Sequence[Model]
) -> list[ModelOnTrend]:
    """Fit the trend of latencies whose logarithms are `training.y`, and a learner's models of what it leaves.

    Models that extend previous ones keep their trend.
    """
    before = [model for model in previous if isinstance(model, ModelOnTrend)]
    trend = before[0].trend if before else fit_trend(training)
    left = replace(training, y=training.y - trend.logarithms(training.x))
    ratios = learner.fit(left, settings, [model.ratio for model in before])
    return [ModelOnTrend(trend, ratio) for ratio in ratios]


def fit_trend(training: Training) -> Trend:
    """Return the trend with the smallest squared errors relative to itself. No weight is negative.

    This is iteratively reweighted least squares with rows of limited influence (Huber, Robust Statistics, 7.8).
    """
    belongs = _belongs(training)
    usual = _usual(training.x)
    terms = np.column_stack([np.ones(len(training.x)), _filled(training.x, usual).astype(np.float64) @ belongs])
    largest = terms.max(axis=0)
    terms /= np.where(largest > 0, largest, 1)
    # A term that is a part of another one must be shown to differ by many rows.
    is_part = [any(set(term) < set(other) for other in training.trend_terms) for term in training.trend_terms]
    ridge_rows = np.array([0.0, *np.where(is_part, _ROWS_TO_SHOW, 0.0)])
    latency_ms = np.exp(training.y.astype(np.float64))
    shares = np.ones(len(terms)) if training.weights is None else training.weights.astype(np.float64)
    median_ms = float(np.median(latency_ms[shares > 0])) if (shares > 0).any() else 1.0
    trend_ms = np.full(len(terms), median_ms)
    for _ in range(_ROUNDS):
        near_ms = np.clip(latency_ms, trend_ms / _FURTHEST, trend_ms * _FURTHEST)
        found = _non_negative(terms / trend_ms[:, None], near_ms / trend_ms, shares, ridge_rows)
        trend_ms = np.maximum(terms @ found, _LEAST_SHARE * median_ms)
    found /= np.where(largest > 0, largest, 1)
    constant = max(float(found[0]), _LEAST_SHARE * median_ms)
    return Trend(np.float32(constant), (belongs @ found[1:]).astype(np.float32), usual)


def _belongs(training: Training) -> NDArray[np.float64]:
    """Return [columns, terms]: 1 where a column belongs to a term."""
    belongs = np.zeros((training.x.shape[1], len(training.trend_terms)))
    for number, term in enumerate(training.trend_terms):
        belongs[list(term), number] = 1.0
    return belongs


def _usual(x: Matrix) -> Matrix:
    """Return each column's median [columns], and 0 for a column that is always missing."""
    usual = np.zeros(x.shape[1], dtype=np.float32)
    for column, values in enumerate(x.T):
        known = values[~np.isnan(values)]
        if len(known):
            usual[column] = np.median(known)
    return usual


def _filled(x: Matrix, usual: Matrix) -> Matrix:
    return np.where(np.isnan(x), usual, x)


def _non_negative(
    terms: NDArray[np.float64],
    wanted: NDArray[np.float64],
    shares: NDArray[np.float64],
    ridge_rows: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the non-negative weights of `terms` [rows, terms] that come nearest to `wanted` [rows].

    Each term is held at 0 by as much as so many `ridge_rows` would hold it.
    """
    weighted = terms * shares[:, None]
    square = weighted.T @ terms
    ridge = _RIDGE + ridge_rows / max(shares.sum(), 1.0)
    square += np.diag(ridge * np.diag(square) + 1e-12)
    root = np.linalg.cholesky(square)
    found, _ = nnls(root.T, np.linalg.solve(root, weighted.T @ wanted))
    return np.asarray(found, dtype=np.float64)
