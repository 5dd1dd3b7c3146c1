"""The exception of commands that run processes."""


class LoopError(Exception):
    """A process can't start or go on; the text is the one line that the user sees."""
