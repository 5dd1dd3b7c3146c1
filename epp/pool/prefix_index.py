"""An approximate index of which endpoint holds which prompt prefix: what was sent where, least recent forgotten."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import xxhash

from epp.scheduling.snapshot import Floats, Indices

# From so many bits on, numpy's fixed cost is less than a loop's.
_MANY = 12


def block_hashes(model: str, prompt: bytes, block_bytes: int, max_blocks: int) -> tuple[int, ...]:
    """Chained hashes of the prompt's leading whole blocks: equal hashes mean equal text up to and including a block."""
    digest = xxhash.xxh3_64_intdigest(model.encode())
    hashes = []
    for start in range(0, min(len(prompt) // block_bytes, max_blocks) * block_bytes, block_bytes):
        digest = xxhash.xxh3_64_intdigest(prompt[start : start + block_bytes], seed=digest)
        hashes.append(digest)
    return tuple(hashes)


class PrefixIndex:
    """Holders of each block as the bits of an integer, one bit an endpoint slot; an LRU list of blocks a slot."""

    def __init__(self, capacity_per_endpoint: int) -> None:
        self._capacity = capacity_per_endpoint
        self._holders: dict[int, int] = {}
        self._blocks: dict[int, OrderedDict[int, None]] = {}

    def scores(self, hashes: Sequence[int], slots: Indices) -> Floats:
        """The share of `hashes` that lead and are held, for each slot; 0 for a prompt shorter than a block."""
        holders = self._holders.get(hashes[0], 0) if hashes else 0
        if not holders or not len(slots):
            return np.zeros(len(slots))
        depths = np.zeros(max(int(slots[-1]) + 1, holders.bit_length()))
        for depth, block in enumerate(hashes[1:], start=1):
            still = holders & self._holders.get(block, 0)
            if still != holders:
                _note(depths, holders & ~still, depth)
                holders = still
                if not holders:
                    break
        _note(depths, holders, len(hashes))
        scores: Floats = depths[slots] / len(hashes)
        return scores

    def add(self, slot: int, hashes: Sequence[int]) -> None:
        """Notes that the endpoint at `slot` is about to hold these blocks."""
        blocks = self._blocks.setdefault(slot, OrderedDict())
        bit = 1 << slot
        for block in hashes:
            if block in blocks:
                blocks.move_to_end(block)
            else:
                blocks[block] = None
                self._holders[block] = self._holders.get(block, 0) | bit
        while len(blocks) > self._capacity:
            self._drop(blocks.popitem(last=False)[0], bit)

    def resize(self, capacity_per_endpoint: int) -> None:
        """From now on, so many blocks an endpoint; what is too much goes when more comes."""
        self._capacity = capacity_per_endpoint

    def forget(self, slot: int) -> None:
        """Drops all that a removed endpoint held."""
        for block in self._blocks.pop(slot, ()):
            self._drop(block, 1 << slot)

    def __len__(self) -> int:
        return len(self._holders)

    def _drop(self, block: int, bit: int) -> None:
        left = self._holders[block] & ~bit
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]


def _note(depths: Floats, bits: int, depth: int) -> None:
    """Writes the depth at the index of each bit that is set."""
    if bits.bit_count() > _MANY:
        raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), dtype=np.uint8)
        depths[np.flatnonzero(np.unpackbits(raw, bitorder="little"))] = depth
        return
    while bits:
        lowest = bits & -bits
        depths[lowest.bit_length() - 1] = depth
        bits ^= lowest
