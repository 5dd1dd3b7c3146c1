"""Read a file of lines to which a process appends, and which may have stopped within a line."""

import os
from pathlib import Path


def whole_lines(file: Path) -> list[bytes]:
    """Return the file's lines without their ends. Cut a last line that was not written to its end off the file."""
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(file, len(whole))
    return whole.splitlines()
