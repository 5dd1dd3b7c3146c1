"""The stamp by which a server sees that somebody has replaced a file."""

import os
from pathlib import Path

Stamp = tuple[int, int, int]


def file_stamp(path: str | Path) -> Stamp | None:
    """Return a value that changes whenever the file does; None when there is no file, or none that may be looked at.

    Kubernetes replaces mounted ConfigMaps and Secrets by renaming a link, so that the path and perhaps time and size
    stay: the inode tells.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
