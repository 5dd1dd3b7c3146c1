"""Starts threads before they are needed.

A thread that finds no memory at its very start leaves the one that started it waiting for ever, and with it the event
loop. So a server starts all its threads at its beginning.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

# As many as asyncio has by default.
_DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)


def default_threads() -> ThreadPoolExecutor:
    """Return started threads for an event loop's `asyncio.to_thread`."""
    threads = ThreadPoolExecutor(_DEFAULT_THREADS, thread_name_prefix="asyncio")
    start_threads(threads, _DEFAULT_THREADS)
    return threads


def start_threads(executor: ThreadPoolExecutor, count: int) -> None:
    """Start `count` threads of an executor, its maximum."""
    all_run = threading.Barrier(count + 1)
    for _ in range(count):
        executor.submit(all_run.wait)
    all_run.wait()
