"""An approximate index of the prompt prefixes that each endpoint holds: the blocks most recently sent to it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from epp.scheduling.snapshot import Floats, Indices

# Blocks of one endpoint at most, whatever cache it reports.
_MOST_BLOCKS = 1 << 20
# Above this many set bits, numpy is faster than a loop.
_MANY = 12


def block_hashes(model: str, prompt: bytes, block_bytes: int, max_blocks: int) -> tuple[int, ...]:
    """Return chained hashes of the prompt's leading whole blocks.

    Equal hashes mean equal text up to the end of the block.
    """
    digest = xxhash.xxh3_64_intdigest(model.encode())
    hashes = []
    for start in range(0, min(len(prompt) // block_bytes, max_blocks) * block_bytes, block_bytes):
        digest = xxhash.xxh3_64_intdigest(prompt[start : start + block_bytes], seed=digest)
        hashes.append(digest)
    return tuple(hashes)


class CacheSize(NamedTuple):
    """An endpoint's prefix cache, in tokens: all of it, and the blocks in which it is reused. 0 is unknown."""

    tokens: float
    block_tokens: float


UNKNOWN_CACHE = CacheSize(0.0, 0.0)


class PrefixIndex:
    """The holders of each block, as an integer with one bit per endpoint slot, and an LRU list of blocks per slot.

    With `tokens_per_block`, the length of the index's blocks, it follows the endpoints' own caches (`follow`).
    """

    def __init__(self, capacity_per_endpoint: int, tokens_per_block: float = 0.0) -> None:
        self._capacity = capacity_per_endpoint
        self._tokens_per_block = tokens_per_block
        self._cache_tokens = self._cache_block_tokens = np.zeros(0)
        self._holders: dict[int, int] = {}
        self._blocks: dict[int, OrderedDict[int, None]] = {}

    def follow(self, cache_tokens: Floats, cache_block_tokens: Floats) -> None:
        """Take the sizes of the endpoints' caches from these arrays by slot (CacheSize), as they change."""
        self._cache_tokens, self._cache_block_tokens = cache_tokens, cache_block_tokens

    def capacity(self, slot: int) -> int:
        """Return the number of blocks kept for an endpoint: as many as its cache holds, if that is known."""
        if self._tokens_per_block and slot < len(self._cache_tokens) and self._cache_tokens[slot]:
            return min(max(int(self._cache_tokens[slot] / self._tokens_per_block), 1), _MOST_BLOCKS)
        return self._capacity

    def scores(self, hashes: Sequence[int], slots: Indices) -> Floats:
        """Return the share of leading `hashes` that each slot holds; 0 for a prompt shorter than a block."""
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
        scores: Floats = self._reusable(depths[slots], slots) / len(hashes)
        return scores

    def _reusable(self, depths: Floats, slots: Indices) -> Floats:
        """Return the part of matched blocks that the endpoints' caches can reuse, which is whole blocks of theirs."""
        if not self._tokens_per_block or not len(self._cache_block_tokens):
            return depths
        blocks = self._cache_block_tokens[slots] / self._tokens_per_block
        coarse = blocks > 1
        if not coarse.any():
            return depths
        whole = np.floor(depths / np.where(coarse, blocks, 1.0)) * blocks
        return np.where(coarse, whole, depths)

    def add(self, slot: int, hashes: Sequence[int]) -> None:
        """Record that the endpoint at `slot` will soon hold these blocks."""
        blocks = self._blocks.setdefault(slot, OrderedDict())
        bit = 1 << slot
        for block in hashes:
            if block in blocks:
                blocks.move_to_end(block)
            else:
                blocks[block] = None
                self._holders[block] = self._holders.get(block, 0) | bit
        capacity = self.capacity(slot)
        while len(blocks) > capacity:
            self._drop(blocks.popitem(last=False)[0], bit)

    def resize(self, capacity_per_endpoint: int, tokens_per_block: float = 0.0) -> None:
        """Set what the constructor sets. Blocks beyond a smaller capacity are dropped at the next `add`."""
        self._capacity, self._tokens_per_block = capacity_per_endpoint, tokens_per_block

    def forget(self, slot: int) -> None:
        """Drop all blocks of a removed endpoint."""
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
    """Write `depth` at the index of each set bit."""
    if bits.bit_count() > _MANY:
        raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), dtype=np.uint8)
        depths[np.flatnonzero(np.unpackbits(raw, bitorder="little"))] = depth
        return
    while bits:
        lowest = bits & -bits
        depths[lowest.bit_length() - 1] = depth
        bits ^= lowest
