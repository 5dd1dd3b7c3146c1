"""The loop's exceptions."""


class LoopError(Exception):
    """The loop can't start or continue; the text is the one line that the user sees."""
