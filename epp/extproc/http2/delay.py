"""How long a peer's frames wait before they are handled: in the peer's socket, in this side's, and in its queue."""

from collections.abc import Callable
from typing import Final

# The PING by which a busy connection measures itself. The answer waits behind the frames that the peer sent before.
DELAY_PING: Final = b"how late"
# A connection that has been busy for less time measures nothing.
_SHORT_S: Final = 0.01


class Delay:
    """The delay of one connection. It is busy from a read until nothing is left to read. `ping` sends DELAY_PING."""

    __slots__ = ("_answered_after_s", "_asked_s", "_busy_since_s", "_ping", "_read_s")

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._busy_since_s = 0.0
        self._read_s = 0.0
        # When the unanswered PING was sent, and how long the last one took.
        self._asked_s: float | None = None
        self._answered_after_s = 0.0

    def read(self, now_s: float, *, was_idle: bool) -> None:
        """Take in that bytes were read from the socket."""
        self._read_s = now_s
        if was_idle:
            self._busy_since_s = now_s
            self._answered_after_s = 0.0

    def left_over(self, now_s: float) -> None:
        """Take in that some of what was read waits for another turn."""
        if self._asked_s is None and now_s - self._busy_since_s > _SHORT_S:
            self._asked_s = now_s
            self._ping()

    def answered(self, now_s: float) -> bool:
        """Take in the peer's answer to the PING. Return False if there was none to answer."""
        if self._asked_s is None:
            return False
        self._answered_after_s, self._asked_s = now_s - self._asked_s, None
        return True

    def waited_s(self, now_s: float) -> float:
        """Return how long the frames have waited that are handled now."""
        asked_s = now_s if self._asked_s is None else self._asked_s
        known_s = max(now_s - self._read_s, now_s - asked_s, self._answered_after_s)
        # A peer may answer late or never.
        return min(known_s, now_s - self._busy_since_s)
