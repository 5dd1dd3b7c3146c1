"""Paged KV memory with a prefix cache: pieces of prompts are reference-counted, and stay cached when unreferenced."""

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """A pool of `capacity` blocks.

    A hashed piece of a prompt takes `piece_blocks` blocks and can be shared. A private block belongs to one sequence.
    A piece that no sequence holds stays cached until its room is needed; the least recently used piece goes first.
    `repeated` counts the holders of pieces beyond the first one of each.
    """

    def __init__(self, capacity: int, piece_blocks: int = 1) -> None:
        self.capacity = capacity
        self.used = 0
        self.repeated = 0
        self._piece_blocks = piece_blocks
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """The number of blocks that can be taken, including those of cached pieces that no sequence holds."""
        return self.capacity - self.used

    def cached_prefix(self, hashes: Sequence[int]) -> int:
        """Return how many of the leading pieces are cached."""
        holders, idle = self._holders, self._idle
        for depth, piece in enumerate(hashes):
            if piece not in holders and piece not in idle:
                return depth
        return len(hashes)

    def idle_among(self, hashes: Sequence[int]) -> int:
        """Return how many blocks the idle pieces among `hashes` occupy. To hold them takes that many free blocks."""
        return sum(piece in self._idle for piece in hashes) * self._piece_blocks

    def hold(self, hashes: Sequence[int]) -> None:
        """Count one more holder for each of these cached pieces."""
        for piece in hashes:
            if piece in self._idle:
                del self._idle[piece]
                self.used += self._piece_blocks
            holders = self._holders.get(piece, 0)
            self._holders[piece] = holders + 1
            self.repeated += holders > 0

    def take(self, count: int) -> bool:
        """Take `count` private blocks, and return True. If too few are free, take none and return False."""
        if count > self.capacity - self.used:
            return False
        self.used += count
        while self.used + len(self._idle) * self._piece_blocks > self.capacity:
            self._idle.popitem(last=False)
        return True

    def publish(self, piece: int) -> bool:
        """Make a piece of private blocks sharable, and return True. Return False if its content is cached already."""
        if piece in self._holders or piece in self._idle:
            return False
        self._holders[piece] = 1
        return True

    def release(self, held: Sequence[int], private: int) -> None:
        """Give back a sequence's blocks. Pieces without other holders stay cached."""
        self.used -= private
        for piece in reversed(held):
            self._holders[piece] -= 1
            if self._holders[piece]:
                self.repeated -= 1
            else:
                del self._holders[piece]
                self._idle[piece] = None
                self.used -= self._piece_blocks
