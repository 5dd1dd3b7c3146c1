"""A body in the pieces that it came in, which are copied as little as possible."""

from collections.abc import Sequence
from dataclasses import dataclass

from epp.request.openai import Span

Piece = bytes | bytearray | memoryview
# Smaller pieces are joined, so that a body of single bytes is no list of a million objects.
_FULL_BYTES = 1 << 15


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The bytes `value` for those at `place`."""

    place: Span
    value: bytes

    @property
    def added_bytes(self) -> int:
        return len(self.value) - (self.place.end - self.place.start)

    def apply(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces with the value in its place."""
        start, end = self.place
        return [*_cut(pieces, 0, start), self.value, *_cut(pieces, end, sum(map(len, pieces)))]


def add(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, to the last one if that is small."""
    last = pieces[-1] if pieces else None
    if last is None or len(last) >= _FULL_BYTES:
        pieces.append(piece)
    elif isinstance(last, bytearray):
        last += piece
    else:
        pieces[-1] = bytearray(last) + piece


def leading(pieces: Sequence[Piece], count: int) -> bytes:
    """Return the first `count` bytes. A single piece that isn't longer is returned itself."""
    if len(pieces) == 1 and len(pieces[0]) <= count:
        return bytes(pieces[0])
    return b"".join(_cut(pieces, 0, count))


def trailing(pieces: Sequence[Piece], count: int) -> bytes:
    """Return the last `count` bytes."""
    size = sum(map(len, pieces))
    return b"".join(_cut(pieces, max(size - count, 0), size))


def _cut(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """Return the bytes from `start` to before `end`, as views of the pieces."""
    found, at = [], 0
    for piece in pieces:
        if at < end and at + len(piece) > start:
            found.append(memoryview(piece)[max(start - at, 0) : end - at])
        at += len(piece)
    return [view for view in found if len(view)]
