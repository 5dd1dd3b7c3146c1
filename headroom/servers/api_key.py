"""The API key of model servers."""

from pathlib import Path

import click

_MOST_BYTES = 16_384


def read_api_key(file: Path | None) -> str:
    """Return the key in the file, or none. It is never an argument, since other users of a machine see those.

    A click.ClickException says what is wrong with the file.
    """
    if file is None:
        return ""
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"can't read {file}: {error}") from error
    if not key or len(key) > _MOST_BYTES or not key.isprintable() or not key.isascii() or " " in key:
        raise click.ClickException(f"{file} holds no API key: expected one line of text without spaces")
    return key
