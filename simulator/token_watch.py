"""When the tokens of a streamed answer came, found by searching its bytes."""

import re

# Servers differ in whether a space follows the colon.
_CONTENT = re.compile(rb'"content": ?"(?!")')
_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
_ERROR = re.compile(rb'data: ?(\{"error".*)')


class TokenWatch:
    """Counts the events that carry content, and notes when the first and the last came.

    A server may put several tokens into one event; where it tells the usage at the end, `tokens` is that.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.first_at = self.last_at = 0.0
        self.done = False
        self.error: str | None = None
        self._rest = b""

    def feed(self, chunk: bytes, now: float) -> None:
        """Takes what arrived at `now`, in seconds; events may be cut anywhere."""
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
        """Time per output token after the first; None with fewer than two."""
        if not self.first_at or self.tokens < 2:
            return None
        return (self.last_at - self.first_at) * 1000 / (self.tokens - 1)
