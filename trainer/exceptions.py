"""What can go wrong in the trainer."""


class StartError(Exception):
    """The server can't start; the text says why."""


class EntryError(Exception):
    """Samples can't be taken; `location` is the path to what is wrong."""

    def __init__(self, location: list[str | int], message: str) -> None:
        super().__init__(message)
        self.location = location


class JournalError(Exception):
    """The sample journal can't be read or written; the text says why."""


class ExportError(Exception):
    """A booster can't be exported as a graph that says the same; the text says why."""


class FitError(Exception):
    """A model can't be fitted; the text says why."""
