"""A block of a documentation page that a command writes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

_END: Final = "<!-- end -->"


@dataclass(frozen=True)
class Block:
    """The block between two marks in a page. The first mark names the command that writes it."""

    command: str

    def require_place(self, file: Path | None) -> None:
        """Raise click.UsageError if `write` can't put the block into the file. None: nothing is to be written."""
        if file and not self.has_place(file):
            raise click.UsageError(
                f"{file} has no place for the table: it has to stand once between the lines {self._begin} and {_END}"
            )

    def has_place(self, file: Path) -> bool:
        """Tell whether `write` can put the block into the file."""
        return not file.exists() or len(self._between.findall(file.read_text())) == 1

    def write(self, file: Path, text: str) -> None:
        """Replace the text between the marks. Make a file of the block alone where there is none."""
        page = file.read_text() if file.exists() else f"{self._begin}{_END}\n"
        file.write_text(self._between.sub(lambda _: f"{self._begin}\n\n{text}\n\n{_END}", page))

    @property
    def _begin(self) -> str:
        return f"<!-- begin: written by {self.command} -->"

    @property
    def _between(self) -> re.Pattern[str]:
        return re.compile(f"{re.escape(self._begin)}.*?{re.escape(_END)}", re.DOTALL)
