"""The errors that all servers share."""


class StartError(Exception):
    """A server can't start. The text says why, and what to change."""
