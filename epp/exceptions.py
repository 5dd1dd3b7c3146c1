"""What can go wrong in the endpoint picker."""


class ConfigError(Exception):
    """The configuration can't be used; the text says where and why."""


class RequestError(Exception):
    """A request that is answered at once; `status` is the HTTP status the client gets."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"inference gateway: {code} - {message}")
        self.status = status


class BadRequestError(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


class NoEndpointError(RequestError):
    def __init__(self, message: str = "failed to find candidate pods for serving the request") -> None:
        super().__init__(503, "ServiceUnavailable", message)


class PredictionUnavailableError(Exception):
    """No prediction in time; the text says why."""
