"""The kinds of model that can be fitted. Each is a module with a `fit`, imported when it is asked for."""

import importlib
from collections.abc import Sequence

from trainer.exceptions import FitError
from trainer.learners.learner import Learner, Model, Training
from trainer.settings import FitSettings

_MODULES = {
    "xgboost": "trainer.learners.xgboost_trees",
    "lightgbm": "trainer.learners.lightgbm_trees",
    "bayesian_ridge": "trainer.learners.bayesian_ridge",
}

__all__ = ["Model", "Training", "fit"]


def fit(training: Training, settings: FitSettings, previous: Sequence[Model] = ()) -> list[Model]:
    """One model a quantile, in the order of `settings.quantiles`, or one of the mean.

    `previous` are the models that an earlier call returned, to go on from with `settings.further_trees` more trees.
    FitError when the learner's library is not installed.
    """
    try:
        learner: Learner = importlib.import_module(_MODULES[settings.model_type])
    except ImportError as error:
        raise FitError(
            f"model type {settings.model_type} needs the package {error.name}: pip install 'headroom[trainer]'"
        ) from error
    return list(learner.fit(training, settings, previous))
