"""Decoding of large batches of samples, a piece in each turn of the event loop, one batch after the other.

64 MiB of JSON take a quarter of a second to decode. A thread would not help: the decoder holds Python's lock.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import Final

from trainer.exceptions import BusyError, EntryError
from trainer.wire import Samples, decode_batch, join

# Largest body that is decoded at once, about 2,000 rows and 3 ms of work.
AT_ONCE_BYTES: Final = 1 << 20
# Smallest piece of a larger body, about 500 rows and 1 ms.
_PIECE_BYTES: Final = 256 << 10
# Places for the end of a piece that are tried: one may lie within a text or a nested value.
_PLACES_TRIED: Final = 4
# Batches that wait for their turn at the same time.
_MOST_WAITING: Final = 4
_HEAD: Final = re.compile(rb'\s*\{\s*"entries"\s*:\s*\[')
_BETWEEN: Final = re.compile(rb"\}\s{0,20},\s{0,20}\{")
_TAIL: Final = re.compile(rb"\]\s*\}\s*")
_TAIL_BYTES: Final = 100


class LargeBatches:
    """Decodes batches. Few large ones may wait for each other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def decode(self, body: bytes, content_type: str) -> Samples:
        """Decode a batch. Raise EntryError if it is wrong, BusyError if too many large ones wait."""
        if len(body) <= AT_ONCE_BYTES:
            return decode_batch(body, content_type)
        if self._waiting >= _MOST_WAITING:
            raise BusyError("too many large batches wait to be decoded")
        self._waiting += 1
        try:
            async with self._turn:
                return await _decode_in_turns(body, content_type)
        finally:
            self._waiting -= 1


async def _decode_in_turns(body: bytes, content_type: str) -> Samples:
    found = []
    for samples in decode_in_pieces(body, content_type):
        found.append(samples)
        await asyncio.sleep(0)
    return join(found)


def decode_in_pieces(body: bytes, content_type: str) -> Iterator[Samples]:
    """Yield the rows of a batch in their order, after a bounded amount of work for each piece."""
    head = _HEAD.match(body, 0, _TAIL_BYTES)
    end = body.rfind(b"]", -_TAIL_BYTES)
    if content_type == "application/msgpack" or not head or end < 0 or not _TAIL.fullmatch(body, end):
        message = f'a body of more than {AT_ONCE_BYTES} bytes must be JSON with nothing but "entries"'
        raise EntryError(["body"], message)
    start, rows = head.end(), 0
    while start < end:
        samples, start = _decode_piece(body, start, end, rows)
        rows += len(samples)
        yield samples


def _decode_piece(body: bytes, start: int, end: int, rows: int) -> tuple[Samples, int]:
    """Return the rows from `start` on, and where the next piece starts. `rows` came before them."""
    stop = start
    for tried in range(1, _PLACES_TRIED + 1):
        look_from, look_to = max(start + _PIECE_BYTES, stop), start + 2 * tried * _PIECE_BYTES
        cut = _BETWEEN.search(body, look_from, min(look_to, end)) if look_from < end else None
        if cut is None and look_to < end:
            continue
        stop, start_of_next = (cut.start() + 1, cut.end() - 1) if cut else (end, end)
        try:
            return decode_batch(b'{"entries":[%b]}' % body[start:stop]), start_of_next
        except EntryError as error:
            if cut is None or tried == _PLACES_TRIED:
                raise EntryError(_moved(error.location, rows), str(error)) from error
    raise EntryError(["body", "entries", str(rows)], f"no row ends within {look_to - start} bytes")


def _moved(location: list[str], rows: int) -> list[str]:
    """Return the location with the number of its row among all rows."""
    return [str(int(part) + rows) if index == 2 else part for index, part in enumerate(location)]
