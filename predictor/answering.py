"""Computing answers, on the event loop for small requests and in a thread for large ones, and counting them."""

import asyncio
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from predictor.engine import Engine
from predictor.exceptions import OverloadedError
from predictor.model import Model
from predictor.statistics import Timing
from serving.threads import start_threads

T = TypeVar("T")
# Largest body that is answered on the event loop: about 50 rows of JSON. They take about 50 microseconds, as long as a
# switch to a thread.
_INLINE_BYTES = 16 << 10
# Separate from the event loop's default threads: those read models, and a store may hang.
_THREADS = os.cpu_count() or 1
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="predict")
# Large requests that wait for a thread or are in one. Each takes some ms, so the last waits about a second.
_MOST_IN_THREADS = 256
_in_threads = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One model's run for a request. `input_ns`: the time before the model ran; `output_ns`: the time after it."""

    model: Model
    rows: int
    input_ns: int
    infer_ns: int
    output_ns: int


@functools.cache
def start() -> None:
    """Start the threads, once in a process."""
    start_threads(_threads, _THREADS)


async def run_inline_or_in_thread(size_bytes: int, answer: Callable[..., T], *arguments: object) -> tuple[T, int]:
    """Call `answer`, in a thread if the body is large. Return its result and the nanoseconds it waited for a thread.

    Raise OverloadedError if too many large requests wait.
    """
    global _in_threads
    if size_bytes <= _INLINE_BYTES:
        return answer(*arguments), 0
    if _in_threads >= _MOST_IN_THREADS:
        raise OverloadedError("too many large requests wait for their turn")
    asked_ns = time.perf_counter_ns()

    def timed() -> tuple[T, int]:
        queue_ns = time.perf_counter_ns() - asked_ns
        return answer(*arguments), queue_ns

    _in_threads += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, timed)
    finally:
        _in_threads -= 1


def count(engine: Engine, run: Run, queue_ns: int = 0) -> None:
    """Count an answered request for the version and for the model. Call this only on the event loop."""
    timing = Timing(run.input_ns, queue_ns, run.infer_ns, run.output_ns)
    run.model.statistics.count(run.rows, timing)
    total = engine.totals.get(run.model.name)
    if total:
        total.count(run.rows, timing)


def count_failure(engine: Engine, name: str, began_ns: int) -> None:
    """Count a refused request for a served model. Requests for unknown models are not counted."""
    served = engine.models.get(name)
    if served:
        took_ns = time.perf_counter_ns() - began_ns
        served.default.statistics.count_failure(took_ns)
        engine.totals[name].count_failure(took_ns)
