"""Limit the responses that are observed chunk by chunk to as many as the trainer can use."""


class ObservationBudget:
    """Two token buckets, for observed responses and for their output tokens, each with room for two seconds.

    An observed response is followed to its end, so its expected output tokens are taken when it begins. If they were
    counted as they come, a whole burst would be observed, and then no response for many seconds. When long responses
    have overdrawn the output tokens, no new response is observed until the bucket has refilled.
    """

    def __init__(self, responses_per_second: float, tokens_per_second: float) -> None:
        self._responses = _Bucket(responses_per_second, room=max(1.0, 2 * responses_per_second))
        self._tokens = _Bucket(tokens_per_second, room=max(1.0, 2 * tokens_per_second))

    def take(self, expected_tokens: float, now_s: float) -> bool:
        """Return whether one more response may be observed now. If so, count it and its expected output tokens."""
        self._responses.fill(now_s)
        self._tokens.fill(now_s)
        if self._responses.left < 1.0 or self._tokens.left <= 0.0:
            return False
        self._responses.left -= 1.0
        self._tokens.left -= expected_tokens
        return True

    def spend(self, tokens: float) -> None:
        """Count output tokens beyond the expected ones; a negative number gives back expected ones that never came."""
        self._tokens.left -= tokens


class _Bucket:
    def __init__(self, per_second: float, room: float) -> None:
        self._per_second = per_second
        self._room = room if per_second > 0 else 0.0
        self.left = self._room
        self._at: float | None = None

    def fill(self, now_s: float) -> None:
        if self._at is not None:
            self.left = min(self._room, self.left + (now_s - self._at) * self._per_second)
        self._at = now_s
