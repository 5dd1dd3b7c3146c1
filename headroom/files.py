"""Files that other processes watch."""

from pathlib import Path


def replace_file(file: Path, text: str) -> None:
    """Replace a watched file at once, so that nobody reads a part of the text."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(file)
