"""Opening models that come from a store, within limits."""

from predictor.loading import LIMITS, Limits, Source, open_model
from predictor.model import Model
from predictor.trial import Trials


class Opener:
    """Opens models. With `trials`, each is tried in another process before this one loads it."""

    def __init__(self, limits: Limits = LIMITS, trials: Trials | None = None) -> None:
        self.limits = limits
        self._trials = trials

    def open(self, source: Source) -> Model:
        """Load a model; raise ModelError if it fails its trial or can't be served."""
        if self._trials:
            self._trials.check(source, self.limits)
        return open_model(source, self.limits, is_tried=self._trials is not None)

    def close(self) -> None:
        """End the processes that try models."""
        if self._trials:
            self._trials.close()
