"""Large requests beyond a number are refused at once, over HTTP and gRPC; small ones are answered meanwhile."""

import asyncio
import threading

import pytest

from predictor import answering
from predictor.answering import run_inline_or_in_thread
from predictor.exceptions import OverloadedError
from predictor.refusals import http_status
from predictor.v2.grpc_front import _STATUSES

LARGE, SMALL = 1 << 20, 100


async def test_a_bounded_number_of_large_requests_waits() -> None:
    go_on = threading.Event()
    waiting = [asyncio.create_task(run_inline_or_in_thread(LARGE, go_on.wait)) for _ in range(10_000)]
    while sum(task.done() for task in waiting) < 10_000 - answering._MOST_IN_THREADS:
        await asyncio.sleep(0)
    assert (await run_inline_or_in_thread(SMALL, lambda: "small"))[0] == "small"
    with pytest.raises(OverloadedError) as refused:
        await run_inline_or_in_thread(LARGE, lambda: None)
    assert http_status(refused.value) == 503
    go_on.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, OverloadedError) for one in found) == 10_000 - answering._MOST_IN_THREADS
    assert (await run_inline_or_in_thread(LARGE, lambda: "large"))[0] == "large"


def test_every_refusal_has_a_grpc_status() -> None:
    assert OverloadedError in _STATUSES
