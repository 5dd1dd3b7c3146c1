"""A circuit breaker per predictor: a failed one is paused, then tried with a single request."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from epp.prediction.loss import Loss

logger = logging.getLogger("headroom.epp.latency")


@dataclass(slots=True)
class Replica:
    """A predictor and its record of failures. Each failure after a pause doubles the next pause, up to a bound.

    The bound is low for one that answers, such as one without models yet: to try it costs a request no deadline.

    `takes_columns` is true until the predictor refuses columns. A failure resets it, since another version may return.
    """

    url: str
    failures: int = 0
    paused_until: float = 0.0
    is_on_trial: bool = False
    takes_columns: bool = True
    loss: Loss = field(default_factory=lambda: Loss(logger))

    FIRST_PAUSE_S = 0.25
    LONGEST_PAUSE_S = 10.0
    LONGEST_PAUSE_OF_ONE_THAT_ANSWERS_S = 1.0
    # A few late answers are no loss; the third failure comes some 0.75 s after the first one.
    FAILURES_OF_A_LOSS = 3

    def available(self) -> bool:
        return not self.failures or (not self.is_on_trial and time.monotonic() >= self.paused_until)

    def asked(self) -> None:
        """Begin a request. After a failure, the request is a trial, and others wait for its outcome."""
        self.is_on_trial = self.failures > 0

    def succeeded(self) -> None:
        self.failures = 0
        self.is_on_trial = False
        self.loss.end("%s predicts again", self.url)

    def failed(self, reason: str, *, has_answered: bool = False) -> None:
        """Count a failure and begin a pause. Failures during a pause count once, since the requests overlapped."""
        now = time.monotonic()
        self.is_on_trial = False
        self.takes_columns = True
        if now < self.paused_until:
            return
        self.failures += 1
        if self.failures >= self.FAILURES_OF_A_LOSS:
            self.loss.begin("%s does not predict; it is tried now and then: %s", self.url, reason)
        longest_s = self.LONGEST_PAUSE_OF_ONE_THAT_ANSWERS_S if has_answered else self.LONGEST_PAUSE_S
        self.paused_until = now + min(self.FIRST_PAUSE_S * 2 ** (self.failures - 1), longest_s)

    def gave_up(self) -> None:
        """End a request that was cancelled, which is neither a success nor a failure of the predictor."""
        self.is_on_trial = False


class Replicas:
    """All predictors, asked in turn."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._replicas = [Replica(url.rstrip("/")) for url in urls]
        self._next = 0

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas)

    def in_order(self) -> list[Replica]:
        """Return the available predictors, starting with the next one at each call."""
        self._next = (self._next + 1) % len(self._replicas)
        turned = self._replicas[self._next :] + self._replicas[: self._next]
        return [replica for replica in turned if replica.available()]
