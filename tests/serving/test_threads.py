"""A server's threads run from its beginning."""

import threading

from serving.threads import default_threads


def test_all_threads_are_started_at_once() -> None:
    before = threading.active_count()
    threads = default_threads()
    started = threading.active_count() - before
    assert started == threads._max_workers
    for _ in range(3 * started):
        threads.submit(int).result()
    assert threading.active_count() - before == started
    threads.shutdown()
