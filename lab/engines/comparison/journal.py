"""The runs that are done, one a line of a file, so that a comparison can be resumed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.calibration.server.asks import Ask, Timeline
from lab.whole_lines import whole_lines


@dataclass(frozen=True, slots=True)
class Seen:
    """A request's latencies in ms. None: its client left before that, or all tokens came at once."""

    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None


@dataclass(frozen=True, slots=True)
class Record:
    """A run of a mix against the engine: the first or a later one of the same requests."""

    mix: str
    run: int
    rate: float
    seen: tuple[Seen, ...]


def see(asks: Sequence[Ask], timelines: Sequence[Timeline]) -> tuple[Seen, ...]:
    """Return what the clients saw. A client that left is counted by its first token only."""
    found = []
    for ask, timeline in zip(asks, timelines, strict=True):
        ended = bool(timeline.tokens) and timeline.tokens[-1] == ask.output_tokens
        found.append(
            Seen(
                timeline.ttft_ms if timeline.times else None,
                timeline.tpot_ms if ended else None,
                timeline.e2e_ms if ended else None,
            )
        )
    return tuple(found)


def append(file: Path, record: Record) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(record)) + "\n")


def read(file: Path) -> dict[tuple[str, int], Record]:
    """Return the runs by mix and number. A last line that was cut off is left out."""
    found = {}
    for line in whole_lines(file) if file.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        seen = tuple(Seen(**one) for one in values.pop("seen"))
        record = Record(**values, seen=seen)
        found[record.mix, record.run] = record
    return found
