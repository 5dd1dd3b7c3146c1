"""Read the picker's journal of ended requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from epp.request.outcome_journal import Row


class Read(NamedTuple):
    """The rows in order of their decisions, and the number of lines that couldn't be read."""

    rows: list[Row]
    unreadable: int


def read_rows(folder: Path, since: float) -> Read:
    """Return the rows decided at or after `since`, in Unix time. OSError if a file can't be read."""
    decode, rows, unreadable = msgspec.json.Decoder(Row).decode, list[Row](), 0
    for line in _lines(folder):
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            unreadable += 1
            continue
        if row.decided_at >= since:
            rows.append(row)
    rows.sort(key=lambda row: row.decided_at)
    return Read(rows, unreadable)


def _lines(folder: Path) -> Iterator[bytes]:
    for file in sorted(folder.glob("outcomes-*.jsonl*")):
        with file.open("rb") as opened:
            # The picker may be writing the last line.
            yield from (line for line in opened if line.endswith(b"\n"))
