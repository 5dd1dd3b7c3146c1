"""How many responses are observed chunk by chunk: as many as the trainer can use, and no more."""


class ObservationBudget:
    """A token bucket of `per_second` observations, with room for a burst of two seconds' worth."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._room = max(1.0, 2 * per_second) if per_second > 0 else 0.0
        self._left = self._room
        self._at: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more response may be observed now."""
        if self._at is not None:
            self._left = min(self._room, self._left + (now_s - self._at) * self._per_second)
        self._at = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
