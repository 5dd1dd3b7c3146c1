"""The HTTP status of each error."""

from predictor.exceptions import (
    ConflictError,
    InputError,
    ModelError,
    NotLoadedError,
    OverloadedError,
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
    OverloadedError: 503,
}


def http_status(error: PredictorError) -> int:
    """Return the error's status. 503 only if no model is loaded: then another replica or a later try may succeed."""
    if isinstance(error, NotLoadedError) and not error.any_loaded:
        return 503
    return _STATUSES[type(error)]
