"""What the trend is worth to models of few rows: their errors on all later rows, as ratios to those of trees alone."""

import numpy as np

from lab.bench.trainer.simulated import simulated_samples
from model_store import SCHEMAS
from trainer.derivation import design_matrix, monotone, raw_columns, trend_terms
from trainer.gate import losses
from trainer.learners import Training, fit
from trainer.settings import FitSettings
from trainer.window import Rows

# The first rows of a pool that fills.
SIZES = (100, 200, 400, 800)
_SETTINGS = FitSettings(quantiles=(0.9, 0.5))


def first_models(requests_per_s: float, seed: int = 1) -> dict[str, float]:
    """Return, by target and size, the mean error of the median's logarithm and the loss of the 0.9-quantile's."""
    figures: dict[str, float] = {}
    for target, data in simulated_samples(requests_per_s, seed).items():
        for size in SIZES:
            with_trend, without = (_errors(data.train, size, target, has) for has in (trend_terms(target), ()))
            for name, one, other in zip(("error", "loss"), with_trend, without, strict=True):
                figures[f"{target}_first_{size}_{name}_over_trees"] = one / other
    return figures


def _errors(rows: Rows, size: int, target: str, trend: tuple[tuple[int, ...], ...]) -> tuple[float, float]:
    names = tuple(feature.name for feature in SCHEMAS[target])
    x, y = design_matrix(target, names, raw_columns(target, rows.x)), np.log(rows.y)
    upper, median = fit(Training(x[:size], y[:size], None, monotone(target), trend), _SETTINGS)
    later, observed = x[size:], y[size:]
    return (
        float(np.abs(median.predict(later) - observed).mean()),
        float(losses(upper.predict(later), observed, _SETTINGS.quantiles[0]).mean()),
    )
