"""Find endpoints that fail their requests, and leave them out for a while.

A broken server answers at once, so its queue looks empty and every policy prefers it. A few failures in a row leave it
out, unless requests fail on the other endpoints too: then the requests are to blame, or all servers are.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from epp.pool.state import CAPACITY
from epp.scheduling.snapshot import Bools, Floats, Indices

# This many failures in a row leave an endpoint out. Fewer may be one client's bad requests.
_IN_A_ROW: Final = 3
# Seconds that an endpoint is left out. Each further failure after that doubles the time.
_FIRST_S, _LONGEST_S = 2.0, 60.0
# The latest responses of the pool that are compared, and the share of failures at which the requests are to blame.
_LATEST: Final = 100
_BLAMELESS_SHARE: Final = 0.2
# The greatest share of the candidates that is left out.
_MOST_LEFT_OUT: Final = 0.5


@dataclass(slots=True)
class Failures:
    """The endpoints that are left out, by slot.

    `on_turn` is called with the slot and the seconds when an endpoint is left out, and with 0 when it answers again.
    """

    clock: Callable[[], float]
    on_turn: Callable[[int, float], None] = lambda slot, seconds: None
    _in_a_row: dict[int, int] = field(default_factory=dict)
    _pause_s: dict[int, float] = field(default_factory=dict)
    _until_s: Floats = field(default_factory=lambda: np.full(CAPACITY, -np.inf))
    _latest: deque[tuple[int, bool]] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def answered(self, slot: int, *, failed: bool) -> None:
        """Take in whether the endpoint failed a request."""
        self._latest.append((slot, failed))
        if not failed:
            if slot in self._in_a_row:
                self._recover(slot)
            return
        in_a_row = self._in_a_row[slot] = self._in_a_row.get(slot, 0) + 1
        now_s = self.clock()
        # Failures of requests that were sent earlier add nothing.
        if in_a_row < _IN_A_ROW or now_s < self._until_s[slot] or self._fails_elsewhere(slot):
            return
        pause_s = min(2 * self._pause_s.get(slot, _FIRST_S / 2), _LONGEST_S)
        self._pause_s[slot] = pause_s
        self._until_s[slot] = now_s + pause_s
        self.on_turn(slot, pause_s)

    def left_out(self, slots: Indices) -> Bools | None:
        """Return which of the candidates to leave out; None if all stay, as they do when more than half fail."""
        if not self._pause_s:
            return None
        out: Bools = self._until_s[slots] > self.clock()
        return out if 0 < out.mean() <= _MOST_LEFT_OUT else None

    def pauses_s(self) -> dict[int, float]:
        """Return the seconds for which each endpoint that fails is left out."""
        return dict(self._pause_s)

    def forget(self, slot: int) -> None:
        """Forget a slot whose endpoint has left the pool."""
        self._in_a_row.pop(slot, None)
        self._pause_s.pop(slot, None)
        self._until_s[slot] = -np.inf

    def _recover(self, slot: int) -> None:
        was_left_out = slot in self._pause_s
        self.forget(slot)
        if was_left_out:
            self.on_turn(slot, 0.0)

    def _fails_elsewhere(self, slot: int) -> bool:
        others = [failed for other, failed in self._latest if other != slot and other not in self._pause_s]
        return bool(others) and sum(others) > _BLAMELESS_SHARE * len(others)
