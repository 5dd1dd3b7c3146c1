"""The types of model that can be fitted. Each is a module with a function `fit`, imported on first use."""

import importlib
from collections.abc import Sequence

from trainer.exceptions import FitError
from trainer.learners.learner import Learner, Model, Training
from trainer.learners.trend import fit_on_trend
from trainer.settings import FitSettings

_MODULES = {
    "xgboost": "trainer.learners.xgboost_trees",
    "lightgbm": "trainer.learners.lightgbm_trees",
    "bayesian_ridge": "trainer.learners.bayesian_ridge",
}

__all__ = ["Model", "Training", "fit"]


def fit(training: Training, settings: FitSettings, previous: Sequence[Model] = ()) -> list[Model]:
    """Fit one model per quantile, in the order of `settings.quantiles`, or one model of the mean.

    `previous`: the models of an earlier call, to extend by `settings.further_trees` trees. Raise FitError when the
    learner's library is not installed.
    """
    try:
        learner: Learner = importlib.import_module(_MODULES[settings.model_type])
    except ImportError as error:
        raise FitError(
            f"model type {settings.model_type} needs the package {error.name}: install Headroom with its extra trainer"
        ) from error
    if settings.in_logarithms and training.trend_terms:
        return list(fit_on_trend(learner, training, settings, previous))
    return list(learner.fit(training, settings, previous))
