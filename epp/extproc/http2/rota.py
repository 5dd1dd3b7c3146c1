"""The order in which connections go on with work that they could not finish at once.

All of them together take a bounded time of each turn of the event loop. So many connections that send too much delay
the others no more than one does.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

# Time for unfinished work in one turn of the event loop. The last piece of work may exceed it.
_ROUND_S: Final = 0.0005


class Rota:
    """A queue of unfinished work. Each piece bounds its own time, and is added again while it is unfinished."""

    __slots__ = ("_loop", "_planned", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._planned = False

    def add(self, work: Callable[[], None]) -> None:
        """Call `work` in a later turn of the event loop, after all that was added before."""
        self._waiting.append(work)
        self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            # One turn of the event loop between two rounds is free for connections without unfinished work.
            self._loop.call_soon(self._loop.call_soon, self._round)

    def _round(self) -> None:
        self._planned = False
        end_s = monotonic() + _ROUND_S
        try:
            # Work that is added during this round waits for the next one.
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
                if monotonic() > end_s:
                    break
        finally:
            if self._waiting:
                self._plan()
