"""Files that other processes watch."""

from pathlib import Path


def replace_file(file: Path, text: str, *, is_secret: bool = False) -> None:
    """Replace a watched file at once, so that nobody reads a part of the text. Only its owner reads a secret."""
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600 if is_secret else 0o666)
    draft.write_text(text)
    draft.rename(file)
