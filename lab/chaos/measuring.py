"""Measure one client's requests before, during and after a fault."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lab.chaos.faults import Fault, Site
from lab.loop.stack import MODEL
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.trace import TraceRequest
from simulator.workload import plan

_PROMPT_TOKENS, _OUTPUT_TOKENS = 200, 8
# A client gives a request up after this time. Longer than any time-out in the loop.
_CLIENT_TIMEOUT_S: Final = 15.0
# A request is late when it takes longer than the slowest hundredth before the fault, by this time: a prediction's
# deadline, and a few steps of an engine.
_LATE_MS: Final = 250.0
_HEADERS: Final = {"x-prediction-based-scheduling": "true"}


@dataclass(frozen=True)
class Times:
    """Seconds of the three spans: before, during and after the fault."""

    before_s: float
    during_s: float
    after_s: float

    @property
    def total_s(self) -> float:
        return self.before_s + self.during_s + self.after_s


@dataclass(frozen=True)
class FaultReport:
    """The result of one fault. `recovery_s` is None if requests were still lost or late at the end of the run."""

    fault: Fault
    sent: int
    lost: dict[str, int]
    before_p99_ms: float
    during_p99_ms: float
    recovery_s: float | None
    warnings: int

    @property
    def lost_in_all(self) -> int:
        return sum(self.lost.values())


async def measure(site: Site, fault: Fault, times: Times, rate: float, log_lines: Callable[[], int]) -> FaultReport:
    """Send `rate` requests a second, let the fault happen meanwhile, and return what the client saw.

    `log_lines` counts the warnings and errors that an operator can read.
    """
    count = int(rate * times.total_s)
    trace = [TraceRequest(index / rate, _PROMPT_TOKENS, _OUTPUT_TOKENS) for index in range(count)]
    sending = asyncio.create_task(
        replay(
            site.config.gateway_url,
            plan(trace, seed=1, salt=fault.name),
            model=MODEL,
            headers=_HEADERS,
            timeout_s=_CLIENT_TIMEOUT_S,
        )
    )
    await asyncio.sleep(times.before_s)
    lines = log_lines()
    clock = asyncio.get_running_loop().time
    began_at = clock()
    end = await fault.begin(site)
    await asyncio.sleep(times.during_s)
    await end()
    # Restarting a process takes its time, and the fault lasts until the process is ready.
    ended_s = times.before_s + clock() - began_at
    outcomes = await sending
    return _seen(fault, outcomes, times.before_s, ended_s, log_lines() - lines)


def _seen(fault: Fault, outcomes: Sequence[Outcome], began_s: float, ended_s: float, warnings: int) -> FaultReport:
    before = [one for one in outcomes if one.sent_s < began_s - 1]
    during = [one for one in outcomes if began_s <= one.sent_s < ended_s]
    before_p99_ms = _p99_ms(before)
    late_ms = before_p99_ms + _LATE_MS
    bad_s = [
        one.sent_s - ended_s
        for one in outcomes
        if one.sent_s >= ended_s and (one.error or one.ttft_ms is None or one.ttft_ms > late_ms)
    ]
    last_s = max((one.sent_s for one in outcomes), default=0.0) - ended_s
    recovery_s: float | None = max(bad_s, default=0.0)
    if recovery_s is not None and recovery_s > last_s - 1:
        recovery_s = None
    lost = Counter(str(one.error).splitlines()[0][:60] for one in outcomes if one.error)
    return FaultReport(fault, len(outcomes), dict(lost), before_p99_ms, _p99_ms(during), recovery_s, warnings)


def _p99_ms(outcomes: Sequence[Outcome]) -> float:
    """Return the 99th percentile of the time to the first token, or until a request without one was given up."""
    taken = [one.e2e_ms if one.ttft_ms is None else one.ttft_ms for one in outcomes]
    return float(np.percentile(taken, 99)) if taken else np.nan
