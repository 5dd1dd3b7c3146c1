"""Mixed traffic, from which the calibration learns what requests cost each other.

A request's work outside its own steps (its arrival, its admission, its end) shows only when others are served. Where
the API server shares a processor with the engine, this work is longer than the steps of a short answer.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from scipy.optimize import minimize

from lab.calibration.server.asks import Ask, Timeline, random_prompt
from lab.calibration.server.guard import Guard
from lab.calibration.server.limits import EngineLimits
from lab.calibration.server.twin import Twin, capacity_rps
from simulator.calibration_file import Calibration
from simulator.hardware import measured_hardware

# Rates, as shares of what the server is thought to keep up with. The last one shows what requests cost in all.
LOADS = (0.3, 0.7, 1.2)
# Lengths in tokens, log-uniform, unless the server's own limits are smaller.
_PROMPTS, _OUTPUTS = (16, 1_024), (8, 128)
_FEWEST, _MOST = 8, 1_000
# Requests by which the server's capacity is estimated.
_AT_ONCE = 100
# Where the search begins: shares of what a request takes alone, and of the usual TTFT without a queue.
_REQUEST_SHARES = (0.1, 0.5, 0.9)
_MIXED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
_SURE_MS = 0.02


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests that were sent, and what came of them."""

    asks: Sequence[Ask]
    timelines: Sequence[Timeline]


async def measure_traffic(
    guard: Guard, rng: random.Random, found: EngineLimits, calibration: Calibration, load: float, seconds: float
) -> Traffic:
    """Send requests of many lengths at random times, at a share of the rate that the calibration's twin keeps up with.

    They come for some seconds, and are neither very few nor very many.
    """
    at_once = _requests(rng, found, _AT_ONCE, math.inf)
    rate = load * capacity_rps(at_once, measured_hardware("twin", calibration))
    asks = _requests(rng, found, min(max(round(rate * seconds), _FEWEST), _MOST), rate)
    [timelines] = await guard.run([asks])
    return Traffic(asks, timelines)


def fit_traffic(calibration: Calibration, traffic: Sequence[Traffic]) -> tuple[Calibration, float]:
    """Take the calibration of steps alone. Return that whose twin is nearest to the server, and how far off it is.

    The twin is off by the mean factor between its latencies and the server's, minus one. A request that finds the
    server idle takes as long as before: what its step doesn't take passes before the engine has it.
    """
    alone_ms = calibration.request_ms + calibration.request_step_ms

    def fitted(request_step_ms: float, mixed_step_ms: float) -> Calibration:
        return replace(
            calibration,
            request_ms=alone_ms - request_step_ms,
            request_step_ms=request_step_ms,
            mixed_step_ms=mixed_step_ms,
        )

    usual_ms = min(median(timeline.ttft_ms for timeline in one.timelines) for one in traffic)
    grid = [(request * alone_ms, mixed * usual_ms) for request in _REQUEST_SHARES for mixed in _MIXED_SHARES]
    near = min(grid, key=lambda at: distance(fitted(*at), traffic))
    best = minimize(
        lambda at: distance(fitted(*at), traffic),
        near,
        method="Nelder-Mead",
        bounds=((0.0, alone_ms), (0.0, usual_ms)),
        options={"xatol": _SURE_MS, "fatol": 1e-4},
    )
    return fitted(*(float(value) for value in best.x)), math.expm1(float(best.fun))


def distance(calibration: Calibration, traffic: Sequence[Traffic]) -> float:
    """Return how far the twin's latencies are from the server's, as the root of a mean square.

    Squared are the mean logarithms of twin / server, of TTFT and of end-to-end latency, under each kind of traffic. The
    errors of single requests would depend on which step each was in time for.
    """
    hardware = measured_hardware("twin", calibration)
    biases = []
    for one in traffic:
        pairs = list(zip(Twin(hardware).replay(one.asks), one.timelines, strict=True))
        biases.append(fmean(math.log(twin.ttft_ms / server.ttft_ms) for twin, server in pairs))
        biases.append(fmean(math.log(twin.e2e_ms / server.e2e_ms) for twin, server in pairs))
    return math.sqrt(fmean(bias * bias for bias in biases))


def _requests(rng: random.Random, found: EngineLimits, count: int, rate: float) -> list[Ask]:
    room = found.max_model_len // 2
    at_s, asks = 0.0, []
    for _ in range(count):
        at_s += rng.expovariate(rate)
        prompt = random_prompt(rng, min(_log_uniform(rng, _PROMPTS), room))
        asks.append(Ask(prompt, min(_log_uniform(rng, _OUTPUTS), room), at_s))
    return asks


def _log_uniform(rng: random.Random, ends: tuple[int, int]) -> int:
    return round(math.exp(rng.uniform(*map(math.log, ends))))
