"""Values that change at moments of virtual time."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Delayed(Generic[T]):
    """A value that is replaced again and again, by each new one from some moment on. Moments only ever come later."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._coming: deque[tuple[float, T]] = deque()

    def replace(self, value: T, from_s: float) -> None:
        self._coming.append((from_s, value))

    def at(self, now_s: float) -> T:
        """The value in force."""
        while self._coming and now_s >= self._coming[0][0]:
            self._value = self._coming.popleft()[1]
        return self._value
