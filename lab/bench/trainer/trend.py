"""What the trend is worth to models of few rows: their errors on all later rows, as ratios to those of trees alone."""

from dataclasses import replace

import numpy as np

from lab.bench.trainer.simulated import simulated_samples
from trainer.fitter import training_of
from trainer.gate import losses
from trainer.learners import Training, fit
from trainer.settings import FitSettings

# The first rows of a pool that fills.
SIZES = (100, 200, 400, 800)
_SETTINGS = FitSettings(quantiles=(0.9, 0.5))


def first_models(requests_per_s: float, seed: int = 1) -> dict[str, float]:
    """Return, by target and size, the mean error of the median's logarithm and the loss of the 0.9-quantile's."""
    figures: dict[str, float] = {}
    for target, data in simulated_samples(requests_per_s, seed).items():
        every = training_of(target, data.train, _SETTINGS)
        for size in SIZES:
            with_trend, without = (_errors(one, size) for one in (every, replace(every, trend_terms=())))
            for name, one, other in zip(("error", "loss"), with_trend, without, strict=True):
                figures[f"{target}_first_{size}_{name}_over_trees"] = one / other
    return figures


def _errors(every: Training, size: int) -> tuple[float, float]:
    upper, median = fit(replace(every, x=every.x[:size], y=every.y[:size]), _SETTINGS)
    later, observed = every.x[size:], every.y[size:]
    return (
        float(np.abs(median.predict(later) - observed).mean()),
        float(losses(upper.predict(later), observed, _SETTINGS.quantiles[0]).mean()),
    )
