"""Arrival times of a streamed answer's tokens, found by searching the bytes of the stream."""

import re

# Some servers write a space after the colon, others don't.
_CONTENT = re.compile(rb'"content": ?"(?!")')
_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
_ERROR = re.compile(rb'data: ?(\{"error".*)')


class TokenWatch:
    """Counts the events with content, and keeps the times of the first and the last one.

    A server may put several tokens into one event. If the server reports usage, `tokens` is the reported number.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.first_at = self.last_at = 0.0
        self.done = False
        self.error: str | None = None
        self._rest = b""

    def feed(self, chunk: bytes, now: float) -> None:
        """Read a chunk that arrived at `now`, in seconds. Chunks may cut events anywhere."""
        whole, _, self._rest = (self._rest + chunk).rpartition(b"\n\n")
        tokens = len(_CONTENT.findall(whole))
        if tokens:
            self.first_at = self.first_at or now
            self.last_at = now
            self.tokens += tokens
        if usage := _USAGE.search(whole):
            self.tokens = int(usage[1])
        if error := _ERROR.search(whole):
            self.error = error[1][:200].decode(errors="replace")
        self.done = self.done or b"data: [DONE]" in whole

    @property
    def tpot_ms(self) -> float | None:
        """The time per output token after the first; None with fewer than two tokens."""
        if not self.first_at or self.tokens < 2:
            return None
        return (self.last_at - self.first_at) * 1000 / (self.tokens - 1)
