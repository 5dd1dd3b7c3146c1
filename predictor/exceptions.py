"""The predictor's errors."""


class PredictorError(Exception):
    """The base of the predictor's errors."""


class ModelError(PredictorError):
    """A version of a model can't be served."""

    def __init__(self, model: str, version: int | None, reason: str) -> None:
        super().__init__(f"{model}/{version}: {reason}" if version else f"{model}: {reason}")
        self.model = model
        self.version = version


class NotLoadedError(PredictorError):
    """The requested model or version is not served; `any_loaded` is true if any other is."""

    def __init__(self, reason: str, any_loaded: bool) -> None:
        super().__init__(reason)
        self.any_loaded = any_loaded


class InputError(PredictorError):
    """A request is invalid; the text names the field."""


class TooLargeError(PredictorError):
    """A request's body exceeds the limit."""


class TooSlowError(PredictorError):
    """A request's body did not arrive in time."""


class OverloadedError(PredictorError):
    """The server has no room for another request now; a later try may succeed."""


class UnsupportedError(PredictorError):
    """A valid request for a function that this server does not have."""


class ConflictError(PredictorError):
    """A valid request that the model control mode does not allow."""
