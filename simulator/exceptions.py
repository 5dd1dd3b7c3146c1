"""The simulator's exceptions."""


class TraceError(Exception):
    """A request trace can't be read; the text names the line."""


class RequestError(Exception):
    """A request can't be served; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CalibrationError(Exception):
    """A calibration can't be read or found; the text names the wrong line, or lists the known names."""
