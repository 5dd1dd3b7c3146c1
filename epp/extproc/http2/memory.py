"""The bytes that the connections of a server occupy, and the limit of that."""

from typing import Final, Protocol

# What an open stream occupies without any data, roughly: its objects and their places in tables.
STREAM_BYTES: Final = 4_096


class Holder(Protocol):
    """A connection, as far as its memory matters."""

    def make_room(self) -> bool:
        """Give up some memory. Return False if the connection has none that it can give up at once."""

    def open_windows(self) -> None:
        """Let the peer send what it was kept from sending."""


class Memory:
    """The memory of all connections of a server.

    From half of the limit on, connections stop opening windows to all but one of the streams that occupy memory. Beyond
    the limit, the connection that occupies most makes room, whichever connection needs it.
    """

    __slots__ = ("_settling", "_shares", "_tight_bytes", "held_bytes", "limit_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._tight_bytes = limit_bytes // 2
        self.held_bytes = 0
        self._settling = False
        self._shares: set[Share] = set()
        # Connections that have kept windows closed.
        self.waiting: set[Holder] = set()

    @property
    def is_tight(self) -> bool:
        return self.held_bytes > self._tight_bytes

    def join(self, connection: Holder) -> "Share":
        """Return the share of a new connection."""
        share = Share(self, connection)
        self._shares.add(share)
        return share

    def leave(self, share: "Share") -> None:
        """Forget a lost connection, and all that it occupied."""
        self._shares.discard(share)
        self.waiting.discard(share.holder)
        share.change(-share.held_bytes)

    def settle(self) -> None:
        """Make room if the limit is exceeded. Open the windows that wait if there is room."""
        if self._settling:
            # A connection that makes room tells of every stream that it gives up.
            return
        self._settling = True
        while self.held_bytes > self.limit_bytes and self._shares:
            largest = max(self._shares, key=lambda share: share.held_bytes)
            if not largest.holder.make_room():
                break
        self._settling = False
        if self.waiting and not self.is_tight:
            waiting, self.waiting = self.waiting, set()
            for connection in waiting:
                connection.open_windows()


class Share:
    """What one connection occupies of the memory."""

    __slots__ = ("held_bytes", "holder", "memory")

    def __init__(self, memory: Memory, holder: Holder) -> None:
        self.memory = memory
        self.holder = holder
        self.held_bytes = 0

    def change(self, difference: int) -> None:
        """Take in that the connection occupies so many bytes more or less. A connection may have to make room."""
        self.held_bytes += difference
        memory = self.memory
        memory.held_bytes += difference
        if memory.held_bytes > memory.limit_bytes or memory.waiting:
            memory.settle()
