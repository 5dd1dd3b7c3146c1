"""Statistics shared by the workers of one port, so that any worker's metrics page covers all of them.

They share a file with one slot per worker, and only that worker writes the slot. A slot that is only partly written has
a wrong checksum; the reader then keeps the slot's previous content.
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
# Length and CRC-32, 4 bytes each.
_HEAD_BYTES = 8
_WRITE_INTERVAL_S = 0.5
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Totals)


def create_slots(path: Path, count: int) -> None:
    path.write_bytes(bytes(count * _SLOT_BYTES))


class SharedTotals:
    """One worker's access to the file: it writes its own slot and reads the others."""

    def __init__(self, index: int, path: Path) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._index = index
        self._last: dict[int, Totals] = {}

    async def run(self, own: Mapping[str, Statistics]) -> None:
        """Write this worker's statistics every half second, until cancelled."""
        while True:
            self.write(own)
            await asyncio.sleep(_WRITE_INTERVAL_S)

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


def sum_totals(parts: list[Mapping[str, Statistics]]) -> Totals:
    """Sum the parts by model."""
    found: Totals = {}
    for part in parts:
        for name, counted in part.items():
            found.setdefault(name, Statistics()).add(counted)
    return found
