"""Tells operators of clients that are cut off."""

import logging
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from epp.extproc.http2.budget import Flood

logger = logging.getLogger("headroom.epp.http2")

# Pause between two lines of the log about floods of one kind.
_LOG_PAUSE_S: Final = 10.0


class FloodReport:
    """Counts every flood by `count`, and logs the first of each kind in ten seconds."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._next_line_s: dict[Flood, float] = {}
        self._unlogged: Counter[Flood] = Counter()

    def add(self, kind: Flood, peer: str) -> None:
        """Report that the connection of `peer` is closed for a flood or refused, or has a stream reset."""
        self._count(kind)
        now = monotonic()
        if now < self._next_line_s.get(kind, now):
            self._unlogged[kind] += 1
            return
        self._next_line_s[kind] = now + _LOG_PAUSE_S
        more = self._unlogged.pop(kind, 0)
        since = f"; {more} others since the last line about this" if more else ""
        match kind:
            case Flood.MEMORY:
                text = "ended a stream or the connection of %s: all together hold more than --max-buffered-bytes%s"
                logger.warning(text, peer, since)
            case Flood.CONNECTIONS:
                logger.warning("refused a connection from %s: --max-connections are open%s", peer, since)
            case _:
                logger.warning("closed the connection from %s: it sent a flood of %s%s", peer, kind, since)
