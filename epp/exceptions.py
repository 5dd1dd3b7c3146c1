"""The endpoint picker's exceptions."""

from collections.abc import Mapping
from typing import Literal

# Names the reason for a refusal, in llm-d's words.
DROPPED_REASON = "x-llm-d-request-dropped-reason"


class ConfigError(Exception):
    """The configuration can't be used. The text says where and why."""


class RequestError(Exception):
    """A request that the picker answers itself, with `status` and `headers`, instead of routing it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"inference gateway: {code} - {message}")
        self.status = status
        self.code = code
        self.headers = headers or {}


class BadRequestError(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


class TooLargeError(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(413, "PayloadTooLarge", message, {DROPPED_REASON: "rejected-too-large"})


class NoEndpointError(RequestError):
    """There is no endpoint, or none that can take the request. `reason` says which."""

    def __init__(
        self,
        message: str = "failed to find candidate pods for serving the request",
        reason: Literal["rejected-no-endpoints", "rejected-saturated"] = "rejected-no-endpoints",
    ) -> None:
        super().__init__(503, "ServiceUnavailable", message, {DROPPED_REASON: reason})


class ShedError(RequestError):
    """A sheddable request for which there is no room. The answer tells the client when to retry."""

    def __init__(self, message: str, retry_after_s: int | None) -> None:
        headers = {DROPPED_REASON: "rejected-saturated", "retry-after": str(retry_after_s or 1)}
        super().__init__(429, "InferencePoolResourceExhausted", message, headers)


# The codes of all refusals.
CODES = tuple(error.code for error in (BadRequestError(""), TooLargeError(""), NoEndpointError(), ShedError("", None)))


class PredictionUnavailableError(Exception):
    """No prediction arrived in time. The text says why."""


class ScrapeError(Exception):
    """A metrics page is missing or can't be used. `kind` is connect, timeout, status or page. The text says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
