"""Logging of errors that repeat, such as those of a poll."""

import logging


class ErrorLog:
    """Logs an error once, until another error follows or the work succeeds again."""

    def __init__(self, logger: logging.Logger, level: int = logging.ERROR) -> None:
        self._logger = logger
        self._level = level
        self._last: str | None = None

    @property
    def last(self) -> str | None:
        """The text of the error that still lasts, or None."""
        return self._last

    def failed(self, error: Exception, text: str, *values: object) -> None:
        """Log `text` with its `values`, unless an error of the same text was the last one."""
        if str(error) != self._last:
            self._logger.log(self._level, text, *values)
        self._last = str(error)

    def succeeded(self) -> bool:
        """Forget the last error. Return true if there was one."""
        had_failed = self._last is not None
        self._last = None
        return had_failed
