"""What can go wrong in the simulator."""


class StartError(Exception):
    """The server can't start; the text says why."""


class TraceError(Exception):
    """A request trace can't be read; the text names the line."""
