"""The exceptions of measuring a server."""


class MeasureError(Exception):
    """A server can't be measured; the text says why, and what to do."""


class DisturbedError(Exception):
    """Other requests came to the server during a measurement, so it must be repeated."""
