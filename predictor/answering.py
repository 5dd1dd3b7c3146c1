"""One request's answer: made on the event loop when it is small, in a thread when it would hold up others."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from predictor.engine import Engine
from predictor.model import Model
from predictor.statistics import Timing

T = TypeVar("T")
# About fifty rows in JSON. Threads cost some 50 microseconds, which is the time that so many rows take.
_INLINE_BYTES = 16 << 10
# Not the event loop's own threads: those read models, from stores that may hang.
_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="predict")


@dataclass(frozen=True, slots=True)
class Run:
    """What one model did for a request. `input_ns` is what came before the model ran, `output_ns` what came after."""

    model: Model
    rows: int
    input_ns: int
    infer_ns: int
    output_ns: int


async def at_leisure(size_bytes: int, answer: Callable[..., T], *arguments: object) -> tuple[T, int]:
    """What `answer` returns, and for how many nanoseconds it waited for a thread."""
    if size_bytes <= _INLINE_BYTES:
        return answer(*arguments), 0
    asked_ns = time.perf_counter_ns()

    def timed() -> tuple[T, int]:
        queue_ns = time.perf_counter_ns() - asked_ns
        return answer(*arguments), queue_ns

    return await asyncio.get_running_loop().run_in_executor(_threads, timed)


def count(engine: Engine, run: Run, queue_ns: int = 0) -> None:
    """Adds an answered request to the statistics of the version and of the model. Called on the event loop only."""
    timing = Timing(run.input_ns, queue_ns, run.infer_ns, run.output_ns)
    run.model.statistics.count(run.rows, timing)
    total = engine.totals.get(run.model.name)
    if total:
        total.count(run.rows, timing)


def count_failure(engine: Engine, name: str, began_ns: int) -> None:
    """Adds a refused request to a served model's statistics; names that are not served are not remembered."""
    served = engine.models.get(name)
    if served:
        took_ns = time.perf_counter_ns() - began_ns
        served.default.statistics.count_failure(took_ns)
        engine.totals[name].count_failure(took_ns)
