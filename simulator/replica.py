"""The engine in real time: one task runs the steps, waits for as long as each step takes, and hands out tokens."""

import asyncio
import time
from collections.abc import AsyncGenerator, Hashable

from simulator.engine import Engine
from simulator.metrics import Metrics
from simulator.sequence import Sequence

# Seconds that a step may end late and the schedule still catch up.
_CATCH_UP_S = 0.05


class Replica:
    """Runs an engine in real time. With `speed_factor` 2, everything takes half the time."""

    def __init__(self, engine: Engine, metrics: Metrics, speed_factor: float = 1.0) -> None:
        self.engine = engine
        self._metrics = metrics
        self._speed_factor = speed_factor
        self._streams: dict[Hashable, asyncio.Queue[bool]] = {}
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Run steps until cancelled."""
        due = time.perf_counter()
        while True:
            step = self.engine.step()
            if step is None:
                self._work.clear()
                await self._work.wait()
                due = time.perf_counter()
                continue
            due = max(due, time.perf_counter() - _CATCH_UP_S) + step.duration_ms / 1000 / self._speed_factor
            await asyncio.sleep(due - time.perf_counter())
            finished = set(step.finished)
            self._metrics.generated(len(step.produced))
            for sequence_id in step.produced:
                # The client may have left during the step.
                if sequence_id in self._streams:
                    self._streams[sequence_id].put_nowait(sequence_id in finished)

    async def generate(self, sequence: Sequence) -> AsyncGenerator[bool, None]:
        """Yield once per token: True for the last, else False. Closing the generator early aborts the request."""
        tokens: asyncio.Queue[bool] = asyncio.Queue()
        before, last = time.perf_counter(), False
        if delay_ms := self.engine.hardware.delay_ms(sequence.prompt_tokens):
            await asyncio.sleep(delay_ms / 1000 / self._speed_factor)
        self.engine.submit(sequence)
        self._streams[sequence.id] = tokens
        self._work.set()
        try:
            last = await tokens.get()
            before, gap_s = _now_and_elapsed(before)
            self._metrics.first_token(sequence, gap_s)
            yield last
            while not last:
                last = await tokens.get()
                before, gap_s = _now_and_elapsed(before)
                self._metrics.later_token(gap_s)
                yield last
        finally:
            del self._streams[sequence.id]
            self._metrics.ended("length" if last else "abort")
            if not last:
                self.engine.abort(sequence.id)


def _now_and_elapsed(before: float) -> tuple[float, float]:
    now = time.perf_counter()
    return now, now - before
