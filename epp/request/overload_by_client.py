"""Keep a level of overload for each client, and tell operators of the highest.

A client decides itself how long its requests seem to wait: it may send more than the picker takes in, or leave the PING
unanswered by which the picker measures its delay. So its waits make its own picks cheaper, and nobody else's.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

from epp.request.overload import Level, Overload, Tally

logger = logging.getLogger("headroom.epp.overload")

# Pause between two lines of the log about the same change, and between two looks for a change that is still untold.
_LOG_PAUSE_S: Final = 10.0
_LOOK_PAUSE_S: Final = 0.1
_HOW: Final = {
    Level.NORMAL: "as configured again",
    Level.DEFAULT: "without predictions",
    Level.RANDOM: "at random among the ready endpoints",
}
# The level, and whether the one before was lower. None: requests were given up.
_Change = tuple[Level, bool] | None


class OverloadByClient:
    """The overload of every client of this process, and its sums.

    The log tells each change of the highest level. A change that was told less than ten seconds ago is told later, if
    it lasts.
    """

    def __init__(self, degrade_after_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._degrade_after_s = degrade_after_s
        self._clock = clock
        self._tally = Tally()
        self._clients: WeakKeyDictionary[object, Overload] = WeakKeyDictionary()
        # What the log has told last.
        self._told = Level.NORMAL
        self._told_given_up = 0
        # False while a level is above normal, or a change is still untold.
        self._is_calm = True
        self._next_line_s: dict[_Change, float] = {}
        self._next_look_s = -math.inf

    def of(self, client: object, address: str) -> Overload:
        """Return the overload of a client, which is kept for as long as the object that stands for the client."""
        if not self._is_calm:
            self._look()
        found = self._clients.get(client)
        if found is None:
            found = Overload(self._degrade_after_s, self._clock, self._tally, self._changed, address)
            self._clients[client] = found
        return found

    @property
    def level(self) -> Level:
        """The highest present level. A level gets better with time, without any request."""
        if not self._is_calm:
            self._look()
        return self._highest()

    @property
    def picks(self) -> dict[Level, int]:
        return self._tally.picks

    @property
    def given_up(self) -> int:
        return self._tally.given_up

    def _highest(self) -> Level:
        return max((one.level for one in self._clients.values()), default=Level.NORMAL)

    def _changed(self, before: Level, level: Level) -> None:
        self._is_calm = False
        if level < before:
            self._look()
        elif level > self._told:
            self._tell_overload(level)

    def _look(self) -> None:
        """Tell what could not be told at once, and of levels that are over because their clients have left."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_PAUSE_S
        if self.given_up > self._told_given_up and self._may_tell(None):
            text = "overloaded: %d requests that had waited too long went back to the gateway without a pick"
            logger.warning(text, self.given_up - self._told_given_up)
            self._told_given_up = self.given_up
        level = self._highest()
        if level > self._told:
            self._tell_overload(level)
        elif level < self._told and self._may_tell((level, False)):
            self._told = level
            logger.info("less load: picks are made %s", _HOW[level])
        self._is_calm = level == self._told == Level.NORMAL and self.given_up == self._told_given_up

    def _tell_overload(self, level: Level) -> None:
        if self._may_tell((level, True)):
            self._told = level
            waiting = [one.address for one in self._clients.values() if one.level == level]
            logger.warning(
                "overloaded: requests wait for more than %g ms (connections: %d, one from %s); their picks are made %s",
                1000 * self._degrade_after_s,
                len(waiting),
                next(iter(waiting), "a client that has left"),
                _HOW[level],
            )

    def _may_tell(self, change: _Change) -> bool:
        """Return whether to tell of a change now. A True begins its pause."""
        now_s = self._clock()
        if now_s < self._next_line_s.get(change, now_s):
            return False
        self._next_line_s[change] = now_s + _LOG_PAUSE_S
        return True
