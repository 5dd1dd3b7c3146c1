"""Tells operators of a server that is lost, and of its return: one line each."""

import logging


class Loss:
    """Whether a server counts as lost. It is logged once when that changes, however often it is said."""

    __slots__ = ("_is_lost", "_logger")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._is_lost = False

    def begin(self, text: str, *values: object) -> None:
        """Take in that the server is lost."""
        if not self._is_lost:
            self._is_lost = True
            self._logger.warning(text, *values)

    def end(self, text: str, *values: object) -> None:
        """Take in that the server serves."""
        if self._is_lost:
            self._is_lost = False
            self._logger.info(text, *values)
