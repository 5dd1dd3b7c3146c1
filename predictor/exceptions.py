"""The predictor's errors."""

# Why models are refused: the store can't be read, no known key has signed the generation, a file is damaged or too
# large, the graph is not allowed, or the model fails its trial.
REFUSALS = ("store", "signature", "files", "graph", "trial")


class PredictorError(Exception):
    """The base of the predictor's errors."""


class ModelError(PredictorError):
    """A version of a model can't be served. `kind` says in metrics what refused it; see REFUSALS."""

    def __init__(self, model: str, version: int | None, reason: str, kind: str = "files") -> None:
        super().__init__(f"{model}/{version}: {reason}" if version else f"{model}: {reason}")
        self.model = model
        self.version = version
        self.kind = kind


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
