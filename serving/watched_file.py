"""File stamps, which show that a file was changed or replaced."""

import os
from pathlib import Path
from typing import Final

Stamp = tuple[int, int, int]
# Seconds between checks whether a key, a certificate or a token has changed.
POLL_S: Final = 1


def file_stamp(path: str | Path) -> Stamp | None:
    """Return a value that changes whenever the file does, or None if the file is absent or inaccessible.

    Kubernetes replaces mounted ConfigMaps and Secrets by renaming a link. The path stays, and perhaps time and size do
    too, but the inode changes.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
