"""Find endpoints that fail their requests, and leave them out for a while.

A broken server answers at once, so its queue looks empty and every policy prefers it. A few failures in a row leave it
out, unless requests fail on the other endpoints too: then the requests are to blame, or all servers are.

A server fails a request by its status, by no answer, or by the end of a stream within the answer.
"""

from collections import deque
from collections.abc import Callable, Container
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
class _Fault:
    """One way in which endpoints fail, the failures in a row of each slot, and the pool's latest results."""

    text: str
    in_a_row: dict[int, int] = field(default_factory=dict)
    latest: deque[tuple[int, bool]] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, slot: int, *, failed: bool) -> None:
        self.latest.append((slot, failed))
        if failed:
            self.in_a_row[slot] = self.in_a_row.get(slot, 0) + 1
        else:
            self.in_a_row.pop(slot, None)

    def is_lasting(self, slot: int) -> bool:
        return self.in_a_row.get(slot, 0) >= _IN_A_ROW

    def is_elsewhere(self, slot: int, known: Container[int]) -> bool:
        """Return whether other endpoints fail as well, without those that are known to."""
        others = [failed for other, failed in self.latest if other != slot and other not in known]
        return bool(others) and sum(others) > _BLAMELESS_SHARE * len(others)


@dataclass(slots=True)
class Failures:
    """The endpoints that are left out, by slot.

    `on_turn` is called with the slot, the seconds and the fault when an endpoint is left out, and with 0 seconds when
    it answers again.
    """

    clock: Callable[[], float]
    on_turn: Callable[[int, float, str], None] = lambda slot, seconds, fault: None
    _refusing: _Fault = field(default_factory=lambda: _Fault("fails its requests"))
    # Counted apart: the headers of a stream that will be cut off are as good as any.
    _cutting: _Fault = field(default_factory=lambda: _Fault("ends its streams within the answer"))
    _pause_s: dict[int, float] = field(default_factory=dict)
    _until_s: Floats = field(default_factory=lambda: np.full(CAPACITY, -np.inf))

    def answered(self, slot: int, *, failed: bool) -> None:
        """Take in whether the endpoint failed a request at once."""
        self._take_in(self._refusing, slot, failed=failed)

    def stream_ended(self, slot: int, *, is_complete: bool) -> None:
        """Take in whether the endpoint had sent a whole answer when it ended a stream.

        Don't call this for a stream that broke: a client that hangs up looks like a server that does.
        """
        self._take_in(self._cutting, slot, failed=not is_complete)

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
        for fault in (self._refusing, self._cutting):
            fault.in_a_row.pop(slot, None)
        self._end_pause(slot)

    def _take_in(self, fault: _Fault, slot: int, *, failed: bool) -> None:
        fault.add(slot, failed=failed)
        if not failed:
            if slot in self._pause_s and not (self._refusing.is_lasting(slot) or self._cutting.is_lasting(slot)):
                self._end_pause(slot)
                self.on_turn(slot, 0.0, "")
            return
        now_s = self.clock()
        # Failures of requests that were sent earlier add nothing.
        if not fault.is_lasting(slot) or now_s < self._until_s[slot] or fault.is_elsewhere(slot, self._pause_s):
            return
        pause_s = min(2 * self._pause_s.get(slot, _FIRST_S / 2), _LONGEST_S)
        self._pause_s[slot] = pause_s
        self._until_s[slot] = now_s + pause_s
        self.on_turn(slot, pause_s, fault.text)

    def _end_pause(self, slot: int) -> None:
        self._pause_s.pop(slot, None)
        self._until_s[slot] = -np.inf
