"""The endpoint picker's exceptions."""

from collections.abc import Mapping


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


class NoEndpointError(RequestError):
    def __init__(self, message: str = "failed to find candidate pods for serving the request") -> None:
        super().__init__(503, "ServiceUnavailable", message)


class ShedError(RequestError):
    """A sheddable request for which there is no room. The answer tells the client when to retry."""

    def __init__(self, message: str, retry_after_s: int | None) -> None:
        headers = {"x-llm-d-request-dropped-reason": message, "retry-after": str(retry_after_s or 1)}
        super().__init__(429, "InferencePoolResourceExhausted", message, headers)


class PredictionUnavailableError(Exception):
    """No prediction arrived in time. The text says why."""


class ScrapeError(Exception):
    """A metrics page is missing or can't be used. `kind` is connect, timeout, status or page. The text says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
