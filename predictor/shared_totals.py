"""What the workers of one port have counted, together: whichever of them is asked for metrics answers for all.

A file of slots, one for each worker and written by it alone. A reader that meets a slot half written finds its checksum
wrong, and takes what it read there before.
"""

import asyncio
import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from predictor.statistics import Statistics

Totals = dict[str, Statistics]
_SLOT_BYTES = 1 << 18
_HEAD_BYTES = 8
_EVERY_S = 0.5
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Totals)


def create_slots(path: Path, count: int) -> None:
    path.write_bytes(bytes(count * _SLOT_BYTES))


class SharedTotals:
    """One worker's view: its own slot to write, the others' to read."""

    def __init__(self, index: int, path: Path) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._index = index
        self._last: dict[int, Totals] = {}

    async def run(self, own: Mapping[str, Statistics]) -> None:
        """Writes what this worker has counted, again and again, until cancelled."""
        while True:
            self.write(own)
            await asyncio.sleep(_EVERY_S)

    def write(self, own: Mapping[str, Statistics]) -> None:
        document = _encode(dict(own))
        if len(document) > _SLOT_BYTES - _HEAD_BYTES:
            return
        head = len(document).to_bytes(4, "little") + zlib.crc32(document).to_bytes(4, "little")
        start = self._index * _SLOT_BYTES
        self._memory[start : start + _HEAD_BYTES + len(document)] = head + document

    def others(self) -> list[Totals]:
        for index in range(len(self._memory) // _SLOT_BYTES):
            if index != self._index:
                found = self._read(index)
                if found is not None:
                    self._last[index] = found
        return list(self._last.values())

    def _read(self, index: int) -> Totals | None:
        start = index * _SLOT_BYTES
        head = self._memory[start : start + _HEAD_BYTES]
        length = int.from_bytes(head[:4], "little")
        document = self._memory[start + _HEAD_BYTES : start + _HEAD_BYTES + length]
        if not length or zlib.crc32(document).to_bytes(4, "little") != head[4:]:
            return None
        return _decoder.decode(document)


def summed(parts: list[Mapping[str, Statistics]]) -> Totals:
    """The totals of all parts, by model."""
    found: Totals = {}
    for part in parts:
        for name, counted in part.items():
            found.setdefault(name, Statistics()).add(counted)
    return found
