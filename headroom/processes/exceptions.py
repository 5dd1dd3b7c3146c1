"""The exception of commands that run processes."""


class PartError(Exception):
    """A part can't start or go on; the text is the one line that the user sees."""
