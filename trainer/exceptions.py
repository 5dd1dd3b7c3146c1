"""The trainer's errors."""


class EntryError(Exception):
    """A request body is invalid; `location` is the path to the wrong field."""

    def __init__(self, location: list[str], message: str) -> None:
        super().__init__(message)
        self.location = location


class BusyError(Exception):
    """There is no room for another request now; a later try may succeed."""


class JournalError(Exception):
    """The sample journal can't be read or written; the text says why."""


class ExportError(Exception):
    """A model can't be exported as a graph that gives the same answers; the text says why."""


class GraphError(Exception):
    """A graph of the store can't be run; the text says why."""


class FitError(Exception):
    """A model can't be fitted; the text says why."""
