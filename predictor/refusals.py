"""What each refusal is called in HTTP."""

from predictor.exceptions import (
    ConflictError,
    InputError,
    ModelError,
    NotLoadedError,
    PredictorError,
    TooLargeError,
    TooSlowError,
    UnsupportedError,
)

_STATUSES: dict[type[PredictorError], int] = {
    InputError: 400,
    ModelError: 400,
    NotLoadedError: 404,
    TooSlowError: 408,
    ConflictError: 409,
    TooLargeError: 413,
    UnsupportedError: 415,
}


def http_status(error: PredictorError) -> int:
    """503 only where nothing at all is loaded: another replica, or a later try, may do better."""
    if isinstance(error, NotLoadedError) and not error.any_loaded:
        return 503
    return _STATUSES[type(error)]
