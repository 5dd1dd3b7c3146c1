"""What ends the loop early."""


class LoopError(Exception):
    """The loop can't start or go on; the text is the one line that the user sees."""
