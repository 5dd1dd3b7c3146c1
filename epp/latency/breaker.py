"""Which predictor to ask: none that lately failed, until its pause is over."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Replica:
    """A predictor and its record. Each failure in a row doubles the pause, up to a bound."""

    url: str
    failures: int = 0
    closed_until: float = 0.0

    FIRST_PAUSE_S = 0.25
    LONGEST_PAUSE_S = 10.0

    def available(self) -> bool:
        return time.monotonic() >= self.closed_until

    def succeeded(self) -> None:
        self.failures = 0
        self.closed_until = 0.0

    def failed(self) -> None:
        self.failures += 1
        pause = min(self.FIRST_PAUSE_S * 2 ** (self.failures - 1), self.LONGEST_PAUSE_S)
        self.closed_until = time.monotonic() + pause


class Replicas:
    """Predictors in turn."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._replicas = [Replica(url.rstrip("/")) for url in urls]
        self._next = 0

    def in_order(self) -> list[Replica]:
        """The available ones, beginning with another each time."""
        self._next = (self._next + 1) % len(self._replicas)
        turned = self._replicas[self._next :] + self._replicas[: self._next]
        return [replica for replica in turned if replica.available()]
