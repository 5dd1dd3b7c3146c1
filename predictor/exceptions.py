"""What can go wrong in the predictor."""


class PredictorError(Exception):
    """Base of the predictor's own errors."""


class StartError(PredictorError):
    """The predictor can't start; the text says what to change."""


class ModelError(PredictorError):
    """A version of a model can't be served."""

    def __init__(self, model: str, version: int | None, reason: str) -> None:
        super().__init__(f"{model}/{version}: {reason}" if version else f"{model}: {reason}")
        self.model = model
        self.version = version


class NotLoadedError(PredictorError):
    """What was asked for is not being served; `any_loaded` tells whether anything else is."""

    def __init__(self, reason: str, any_loaded: bool) -> None:
        super().__init__(reason)
        self.any_loaded = any_loaded


class InputError(PredictorError):
    """A request can't be understood; the text names the field."""


class TooLargeError(PredictorError):
    """A request's body is over the limit."""


class TooSlowError(PredictorError):
    """A request's body did not arrive in time."""


class UnsupportedError(PredictorError):
    """A known request that is not served here."""


class ConflictError(PredictorError):
    """A known request that the model control mode does not allow."""
