"""The header that asks refused clients to come back after a second."""

from typing import Final

RETRY_AFTER: Final = (b"retry-after", b"1")
BUSY: Final = (429, 503)


def retry_after(status: int) -> dict[str, str]:
    """Return the header as an answer with this status needs it: none, unless the server was busy."""
    name, value = RETRY_AFTER
    return {name.decode(): value.decode()} if status in BUSY else {}
