"""Tells an operator when a process has no descriptor left: connections are then closed without an answer."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("headroom.life")

_EVERY_S: Final = 1.0
# Errors of a process or a system that can open nothing more.
EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)


def is_exhausted() -> bool:
    """Return whether no descriptor can be opened."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in EXHAUSTED
    return False


async def watch_descriptors(is_exhausted: Callable[[], bool] = is_exhausted, every_s: float = _EVERY_S) -> None:
    """Log once when there is none left, and once when there is one again, until cancelled."""
    was_exhausted = False
    while True:
        if is_exhausted() != was_exhausted:
            was_exhausted = not was_exhausted
            if was_exhausted:
                logger.warning("no descriptors are left (ulimit -n): new connections are closed unanswered")
            else:
                logger.info("descriptors are free again")
        await asyncio.sleep(every_s)
