"""A connection's budget for frames that cause work and carry no request."""

from enum import StrEnum
from time import monotonic
from typing import Final

from epp.extproc.http2.frames import ConnectionFault, ErrorCode


class Flood(StrEnum):
    """What a peer sends too much of. The values are those of the metric's label."""

    # Connections that are refused because too many are open.
    CONNECTIONS = "connections"
    CONTINUATION = "continuation"
    EMPTY_DATA = "empty_data"
    EMPTY_MESSAGE = "empty_message"
    # Frames on streams that have ended.
    ENDED_STREAM = "ended_stream"
    # Frames that break the protocol, so that the server resets their streams.
    FAULTY_FRAME = "faulty_frame"
    # Messages that are compressed, too large, incomplete or unreadable.
    FAULTY_MESSAGE = "faulty_message"
    GOAWAY = "goaway"
    LARGE_HEADERS = "large_headers"
    # Streams that are reset because all streams together occupy more memory than they may.
    MEMORY = "memory"
    PING = "ping"
    PRIORITY = "priority"
    RST_STREAM = "rst_stream"
    SETTINGS = "settings"
    UNKNOWN_FRAME = "unknown_frame"
    # Requests of unknown methods, and requests that are not gRPC.
    UNSERVED_REQUEST = "unserved_request"
    # Steps of a window that are smaller than a kilobyte.
    WINDOW_UPDATE = "window_update"


class FloodFault(ConnectionFault):
    """The peer has used up its budget, mostly by frames of one kind."""

    def __init__(self, kind: Flood) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, f"too many frames without a request: {kind}")
        self.kind = kind


class ControlFrameBudget:
    """A budget for frames that cause work and carry no request.

    It refills slowly with time. A request's headers and each answer to a request restore a little of what was spent.
    """

    BURST: Final = 1_000.0
    STRAINED: Final = 950.0
    PER_SECOND: Final = 50.0
    # What an honest client spends for a message at most: a PING, two small WINDOW_UPDATE, and the stream's RST_STREAM.
    PER_MESSAGE: Final = 4.0

    __slots__ = ("_at", "_left", "_spent")

    def __init__(self) -> None:
        self._left = self.BURST
        self._at = monotonic()
        # By kind of frame, since the budget was last full.
        self._spent: dict[Flood, float] = {}

    @property
    def is_strained(self) -> bool:
        """Tell whether the peer has spent as much as honest clients hardly do."""
        return self._left < self.STRAINED

    def restore(self) -> None:
        """Give back a little of what was spent, for a message that does a request's work."""
        if self._left < self.BURST:
            self._left = min(self.BURST, self._left + self.PER_MESSAGE)

    def spend(self, kind: Flood, cost: float = 1.0) -> None:
        """Pay for a frame. Raise FloodFault when the budget is used up."""
        now = monotonic()
        self._left += (now - self._at) * self.PER_SECOND
        self._at = now
        if self._left >= self.BURST:
            self._left = self.BURST
            self._spent.clear()
        self._left -= cost
        self._spent[kind] = self._spent.get(kind, 0.0) + cost
        if self._left < 0:
            raise FloodFault(max(self._spent, key=self._spent.__getitem__))
