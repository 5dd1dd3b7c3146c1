"""Paged KV memory with a prefix cache: pieces of prompts are counted by holder, and stay when nobody holds them."""

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """`capacity` blocks. A hashed piece of a prompt, `piece_blocks` long, can be shared; a private block belongs to one
    sequence.

    Pieces that nobody holds keep their content until room is needed, least recently used first.
    """

    def __init__(self, capacity: int, piece_blocks: int = 1) -> None:
        self.capacity = capacity
        self.used = 0
        self._piece_blocks = piece_blocks
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that can be taken, cached ones included."""
        return self.capacity - self.used

    def cached_prefix(self, hashes: Sequence[int]) -> int:
        """How many of the leading pieces are there."""
        holders, idle = self._holders, self._idle
        for depth, piece in enumerate(hashes):
            if piece not in holders and piece not in idle:
                return depth
        return len(hashes)

    def idle_among(self, hashes: Sequence[int]) -> int:
        """Blocks of these cached pieces that nobody holds: holding them takes room."""
        return sum(piece in self._idle for piece in hashes) * self._piece_blocks

    def hold(self, hashes: Sequence[int]) -> None:
        """Shares cached pieces."""
        for piece in hashes:
            if piece in self._idle:
                del self._idle[piece]
                self.used += self._piece_blocks
            self._holders[piece] = self._holders.get(piece, 0) + 1

    def take(self, count: int) -> bool:
        """Takes private blocks, or none when there are too few."""
        if count > self.capacity - self.used:
            return False
        self.used += count
        while self.used + len(self._idle) * self._piece_blocks > self.capacity:
            self._idle.popitem(last=False)
        return True

    def publish(self, piece: int) -> bool:
        """Lets a piece of private blocks be shared from now on; False when the same content is there already."""
        if piece in self._holders or piece in self._idle:
            return False
        self._holders[piece] = 1
        return True

    def release(self, held: Sequence[int], private: int) -> None:
        """Gives back a sequence's blocks; the shared ones stay cached."""
        self.used -= private
        for piece in reversed(held):
            self._holders[piece] -= 1
            if not self._holders[piece]:
                del self._holders[piece]
                self._idle[piece] = None
                self.used -= self._piece_blocks
