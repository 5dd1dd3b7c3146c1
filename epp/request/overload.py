"""Decide how much work a pick may be, by how long requests wait before the picker looks at them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

# Calm after which decisions become one level better, and the longest such time. It doubles with each relapse.
_FIRST_CALM_S: Final = 1.0
_LONGEST_CALM_S: Final = 16.0
# A request is given up after so many times `degrade_after_s`. By default, Envoy waits four times as long. If it has
# given the body away, the request is lost with the pick: then Envoy waits until a PING is 3 s late.
_TOO_LATE: Final = 3
_TOO_LATE_TO_LOSE: Final = 40


class Level(IntEnum):
    """How picks are made. Each level costs less than the one before."""

    NORMAL = 0
    # No request waits for predictions: the fallback profile decides.
    DEFAULT = 1
    # The profile's filters decide who may serve, and chance decides who does.
    RANDOM = 2

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(slots=True)
class Tally:
    """Counts of picks by their level, and of requests that were given up."""

    picks: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))
    given_up: int = 0


class Overload:
    """The level of one client's picks, which follows the waits of its requests. A wait ends when the picker looks.

    When no request has waited less than `degrade_after_s` for as long as that, picks get one level cheaper. One slow
    request among prompt ones changes nothing. When no request has waited half of it for a second, picks get one level
    better. If they must get cheaper again soon after that, the next return takes twice as long, up to a bound.

    Where even random picks come too late, some requests are given up, so that the others are in time.

    `on_change` is called with the level before and the present one at each change. `address` is the client's.
    """

    def __init__(
        self,
        degrade_after_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
        on_change: Callable[[Level, Level], None] = lambda before, level: None,
        address: str = "",
    ) -> None:
        self._most_s = degrade_after_s
        self._clock = clock
        self.address = address
        self._tally = tally or Tally()
        self._on_change = on_change
        self._level = Level.NORMAL
        # Since when no request waited less than `_most_s`, and since when none waited half of that.
        self._slow_since_s: float | None = None
        self._calm_since_s = -math.inf
        self._calm_s = _FIRST_CALM_S
        self._bettered_at_s = -math.inf

    @property
    def level(self) -> Level:
        """The present level. It gets better with time, without any request."""
        if self._level:
            self._recover(self._clock())
        return self._level

    def pick(self, waited_s: float) -> Level:
        """Return the level at which to pick for a request that has waited so long, and count the pick."""
        if self._level or waited_s > self._most_s / 2:
            self._note(waited_s, self._clock())
        else:
            self._slow_since_s = None
        self._tally.picks[self._level] += 1
        return self._level

    def gives_up(self, waited_s: float, *, holds_body: bool = False) -> bool:
        """Return whether a request that has waited so long gets no pick, because the gateway won't wait for it.

        `holds_body` says that the gateway has given the request's body away, and can't go on without a pick.
        """
        most_s = self._most_s * (_TOO_LATE_TO_LOSE if holds_body else _TOO_LATE)
        if self._level != Level.RANDOM or waited_s <= most_s:
            return False
        self._tally.given_up += 1
        self._note(waited_s, self._clock())
        return True

    def _note(self, waited_s: float, now_s: float) -> None:
        if waited_s > self._most_s / 2:
            self._calm_since_s = now_s
        if waited_s <= self._most_s:
            self._slow_since_s = None
        elif self._slow_since_s is None:
            self._slow_since_s = now_s
        elif now_s - self._slow_since_s >= self._most_s:
            self._slow_since_s = now_s
            self._worsen(now_s)
        self._recover(now_s)

    def _worsen(self, now_s: float) -> None:
        if self._level == Level.RANDOM:
            return
        if now_s - self._bettered_at_s < 2 * self._calm_s:
            self._calm_s = min(2 * self._calm_s, _LONGEST_CALM_S)
            self._bettered_at_s = -math.inf
        elif self._level == Level.NORMAL:
            self._calm_s = _FIRST_CALM_S
        self._change(Level(self._level + 1))

    def _recover(self, now_s: float) -> None:
        while self._level and now_s - self._calm_since_s >= self._calm_s:
            self._calm_since_s += self._calm_s
            self._bettered_at_s = now_s
            self._change(Level(self._level - 1))

    def _change(self, level: Level) -> None:
        before, self._level = self._level, level
        self._on_change(before, level)
