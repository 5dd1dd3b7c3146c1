"""Values that change at moments of virtual time."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Delayed(Generic[T]):
    """A value whose replacements take effect at later moments. Moments must not decrease."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._coming: deque[tuple[float, T]] = deque()

    def replace(self, value: T, from_s: float) -> None:
        self._coming.append((from_s, value))

    def at(self, now_s: float) -> T:
        """Return the value in effect at `now_s`."""
        while self._coming and now_s >= self._coming[0][0]:
            self._value = self._coming.popleft()[1]
        return self._value
