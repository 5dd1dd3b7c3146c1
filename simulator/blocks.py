"""Paged KV memory with a prefix cache: blocks are counted by holder, and stay cached when nobody holds them."""

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """`capacity` blocks. A hashed block can be shared; a private one belongs to one sequence.

    Blocks that nobody holds keep their content until room is needed, least recently used first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that can be taken, cached ones included."""
        return self.capacity - self.used

    def cached_prefix(self, hashes: Sequence[int]) -> int:
        """How many of the leading blocks are there."""
        for depth, block in enumerate(hashes):
            if block not in self._holders and block not in self._idle:
                return depth
        return len(hashes)

    def idle_among(self, hashes: Sequence[int]) -> int:
        """How many of these cached blocks nobody holds: holding them takes room."""
        return sum(block in self._idle for block in hashes)

    def hold(self, hashes: Sequence[int]) -> None:
        """Shares cached blocks."""
        for block in hashes:
            if block in self._idle:
                del self._idle[block]
                self.used += 1
            self._holders[block] = self._holders.get(block, 0) + 1

    def take(self, count: int) -> bool:
        """Takes private blocks, or none when there are too few."""
        if count > self.free:
            return False
        self.used += count
        while self.used + len(self._idle) > self.capacity:
            self._idle.popitem(last=False)
        return True

    def publish(self, block: int) -> bool:
        """Lets a private block be shared from now on; False when the same content is there already."""
        if block in self._holders or block in self._idle:
            return False
        self._holders[block] = 1
        return True

    def release(self, held: Sequence[int], private: int) -> None:
        """Gives back a sequence's blocks; the shared ones stay cached."""
        self.used -= private
        for block in reversed(held):
            self._holders[block] -= 1
            if not self._holders[block]:
                del self._holders[block]
                self._idle[block] = None
                self.used -= 1
