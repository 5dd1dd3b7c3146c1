"""Rings through which workers share the endpoint of each prompt. Each worker writes its own ring.

An entry is a slot, a count, and that many block hashes. A ring's first number counts all numbers ever written. A slow
reader skips overwritten entries, and may then meet a torn one. An entry that makes no sense ends the reading. That does
no harm, because the prefix index is a guess anyway.
"""

import mmap
from collections.abc import Sequence

import numpy as np

from epp.pool.prefix_index import PrefixIndex
from epp.pool.state import CAPACITY

_NUMBERS = 1 << 16
_HEAD = 1
_RING = _HEAD + _NUMBERS
_MOST_BLOCKS = 4096


def rings_bytes(workers: int) -> int:
    return workers * _RING * 8


class PrefixRings:
    """One worker's view of the rings: it writes its own, and reads the others'."""

    def __init__(self, memory: mmap.mmap, worker: int) -> None:
        rings = np.frombuffer(memory, dtype=np.uint64).reshape(-1, _RING)
        self._own = rings[worker]
        self._others = [ring for index, ring in enumerate(rings) if index != worker]
        self._read = [int(ring[0]) for ring in self._others]

    def write(self, slot: int, hashes: Sequence[int]) -> None:
        if not hashes or len(hashes) > _MOST_BLOCKS:
            return
        written = int(self._own[0])
        entry = np.array([slot, len(hashes), *hashes], dtype=np.uint64)
        at = written % _NUMBERS
        fits = min(len(entry), _NUMBERS - at)
        self._own[_HEAD + at : _HEAD + at + fits] = entry[:fits]
        self._own[_HEAD : _HEAD + len(entry) - fits] = entry[fits:]
        self._own[0] = written + len(entry)

    def read_into(self, index: PrefixIndex) -> None:
        """Add the entries that the other workers have written since the last call."""
        for which, ring in enumerate(self._others):
            written, read = int(ring[0]), self._read[which]
            if written == read:
                continue
            self._read[which] = written
            if 0 < written - read <= _NUMBERS:
                _take(ring[(np.arange(read, written) % _NUMBERS) + _HEAD].tolist(), index)


def _take(numbers: list[int], index: PrefixIndex) -> None:
    at = 0
    while at + 2 <= len(numbers):
        slot, count = numbers[at], numbers[at + 1]
        if slot >= CAPACITY or not 0 < count <= _MOST_BLOCKS:
            return
        index.add(slot, numbers[at + 2 : at + 2 + count])
        at += 2 + count
