"""The folder in which `headroom up` keeps what must outlive it."""

from collections.abc import Mapping
from pathlib import Path

# The journal of outcomes in the folder.
JOURNAL = "outcomes"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the default folder, by the XDG Base Directory Specification 0.8: a relative path must be ignored."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "headroom"
