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
    the limit, the connection that occupies most makes room, whichever connection needs it. Both hold for each
    connection as well, by a limit of its own. That is less than half of the other, so that no connection closes the
    windows of others alone.
    """

    __slots__ = ("_settling", "_shares", "_tight_bytes", "held_bytes", "limit_bytes", "share_limit_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.share_limit_bytes = limit_bytes * 3 // 8
        self._tight_bytes = limit_bytes // 2
        self.held_bytes = 0
        self._settling = False
        self._shares: set[Share] = set()
        # The shares of connections that have kept windows closed.
        self.waiting: set[Share] = set()

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
        self.waiting.discard(share)
        share.change(-share.held_bytes)

    def settle(self, changed: "Share") -> None:
        """Make room if a limit is exceeded. Open the windows that wait if there is room."""
        if self._settling:
            # A connection that makes room tells of every stream that it gives up.
            return
        self._settling = True
        while changed.held_bytes > self.share_limit_bytes and changed.holder.make_room():
            pass
        while self.held_bytes > self.limit_bytes and self._shares:
            largest = max(self._shares, key=lambda share: share.held_bytes)
            if not largest.holder.make_room():
                break
        self._settling = False
        if self.waiting and not self.is_tight:
            for share in [share for share in self.waiting if not share.is_tight]:
                self.waiting.discard(share)
                share.holder.open_windows()


class Share:
    """What one connection occupies of the memory."""

    __slots__ = ("_tight_bytes", "held_bytes", "holder", "memory")

    def __init__(self, memory: Memory, holder: Holder) -> None:
        self.memory = memory
        self.holder = holder
        self._tight_bytes = memory.share_limit_bytes // 2
        self.held_bytes = 0

    @property
    def is_tight(self) -> bool:
        """Tell whether windows have to stay closed, for want of this connection's memory or of that of all."""
        return self.held_bytes > self._tight_bytes or self.memory.is_tight

    def change(self, difference: int) -> None:
        """Take in that the connection occupies so many bytes more or less. A connection may have to make room."""
        self.held_bytes += difference
        memory = self.memory
        memory.held_bytes += difference
        if self.held_bytes > memory.share_limit_bytes or memory.held_bytes > memory.limit_bytes or memory.waiting:
            memory.settle(self)
