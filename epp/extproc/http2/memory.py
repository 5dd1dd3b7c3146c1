"""The bytes that the streams of all connections of a server occupy, and the limit of that."""

from typing import Final, Protocol

# What an open stream occupies without any data, roughly: its objects and their places in tables.
STREAM_BYTES: Final = 4_096


class Holder(Protocol):
    """A connection, as far as its memory matters. `held_bytes` is what its streams occupy."""

    held_bytes: int

    def reset_one(self) -> bool:
        """Reset a stream to make room. Return False if the connection has none."""

    def open_windows(self) -> None:
        """Let the peer send what it was kept from sending."""


class Memory:
    """Counts the bytes that connections occupy.

    From half of the limit on, connections stop opening windows to all but one of the streams that occupy memory. Beyond
    the limit, the connection that occupies most has its newest streams reset, whichever connection needs the room.
    """

    __slots__ = ("_connections", "_limit", "_tight", "_waiting", "held_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._tight = limit_bytes // 2
        self._connections: set[Holder] = set()
        # Connections that have kept windows closed.
        self._waiting: set[Holder] = set()
        self.held_bytes = 0

    @property
    def is_tight(self) -> bool:
        return self.held_bytes > self._tight

    def add_connection(self, connection: Holder) -> None:
        self._connections.add(connection)

    def remove_connection(self, connection: Holder) -> None:
        self._connections.discard(connection)
        self._waiting.discard(connection)

    def change(self, difference: int) -> None:
        """Take in that a connection occupies so many bytes more or less."""
        self.held_bytes += difference
        if self.held_bytes > self._limit:
            self._make_room()
        elif self._waiting and not self.is_tight:
            waiting, self._waiting = self._waiting, set()
            for connection in waiting:
                connection.open_windows()

    def wait(self, connection: Holder) -> None:
        """Call the connection's `open_windows` when memory is no longer tight."""
        self._waiting.add(connection)

    def _make_room(self) -> None:
        while self.held_bytes > self._limit:
            largest = max(self._connections, key=lambda connection: connection.held_bytes)
            if not largest.reset_one():
                return
