"""The life of a server's process: start, run until a signal, end.

SIGTERM and SIGINT ask a server to end. So does the end of its parent process, if HEADROOM_PARENT names it
(serving/parent.py).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import uvloop

from serving.descriptors import watch_descriptors
from serving.parent import watched_parent
from serving.threads import default_threads

logger = logging.getLogger("headroom.life")

# The signals received and not yet handled, oldest first.
Signals = asyncio.Queue[signal.Signals]


class Server(Protocol):
    """The steps of a server's life."""

    async def start(self) -> None:
        """Begin to serve; raise StartError on failure. The first signal cancels it."""

    async def run(self) -> None:
        """Run until the first signal cancels it. Return or raise only if a part of the server has ended."""

    async def end(self, signals: Signals) -> None:
        """Drain, and release what `start` has acquired so far. `signals` has the signals after the first."""


def live(server: Server) -> None:
    """Run a server's whole life. Return after a signal; if an error ended the server, raise it."""
    uvloop.run(_live(server))


async def _live(server: Server) -> None:
    signals = Signals()
    asyncio.get_running_loop().set_default_executor(default_threads())
    watching = asyncio.create_task(watch_descriptors())
    with _catch_signals(signals):
        try:
            await _serve(server, signals)
        finally:
            await server.end(signals)
            watching.cancel()


async def _serve(server: Server, signals: Signals) -> None:
    """Start and run until the first signal."""
    going = asyncio.timeout(None)

    def expire(_: object) -> None:
        with suppress(RuntimeError):  # the server ended by itself, so the timeout is over
            going.reschedule(0)

    first = asyncio.create_task(signals.get())
    first.add_done_callback(expire)
    try:
        async with going:
            await server.start()
            await server.run()
    except TimeoutError:
        if not going.expired():
            raise
    finally:
        first.cancel()


@contextmanager
def _catch_signals(signals: Signals) -> Iterator[None]:
    """Put every signal into the queue, and two SIGTERMs when the parent process ends."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    parent = watched_parent()
    if parent is None:
        yield
        return

    def on_parent_end() -> None:
        logger.warning("the process that started this one has ended, so this one ends too")
        loop.remove_reader(parent)
        # The second signal ends a picker's shutdown delay: nobody is left to send it.
        for _ in range(2):
            signals.put_nowait(signal.SIGTERM)

    loop.add_reader(parent, on_parent_end)
    try:
        yield
    finally:
        loop.remove_reader(parent)
        os.close(parent)
