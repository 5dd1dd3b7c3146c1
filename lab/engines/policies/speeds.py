"""Measure how fast each server is alone, and how many requests all servers can answer at most."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import msgspec

from headroom.processes.exceptions import PartError
from lab.engines.policies.plan import Multiple
from simulator.load.replay import replay
from simulator.outcome import Outcome
from simulator.trace import TraceRequest
from simulator.workload import PlannedRequest, plan

# Prompts of two lengths give TTFT as a line over the prompt's length.
_SHORT, _LONG, _OUTPUT = 40, 400, 40
_REPEATS = 7


class ServerSpeed(msgspec.Struct, frozen=True):
    """One server alone: TTFT as a line over prompt tokens, TPOT, and requests/s when it has as many as it can take."""

    name: str
    ttft_ms: float
    ttft_ms_per_token: float
    tpot_ms: float
    capacity_rps: float


async def measure(name: str, url: str, model: str, sample: Sequence[PlannedRequest]) -> ServerSpeed:
    """Measure an idle server in some ten seconds. `sample` has requests of the load for the capacity."""
    short = await _alone(url, model, _SHORT)
    long = await _alone(url, model, _LONG)
    slope = max(_median("ttft_ms", long) - _median("ttft_ms", short), 0.0) / (_LONG - _SHORT)
    at_once = [replace(request, id=f"{name}-{request.id}", arrival_s=0.0) for request in sample]
    began = asyncio.get_running_loop().time()
    _checked(name, await replay(url, at_once, model=model))
    return ServerSpeed(
        name,
        _median("ttft_ms", short) - slope * _SHORT,
        slope,
        _median("tpot_ms", [*short, *long]),
        len(at_once) / (asyncio.get_running_loop().time() - began),
    )


def with_objectives(
    requests: Sequence[PlannedRequest], speeds: Sequence[ServerSpeed], wanted: Multiple
) -> list[PlannedRequest]:
    """Return the requests with objectives that are a multiple of one server's own times."""
    choose = max if wanted.of_slowest else min
    server = choose(speeds, key=lambda speed: speed.tpot_ms)
    return [
        replace(
            request,
            slo_ttft_ms=round(wanted.multiple * (server.ttft_ms + server.ttft_ms_per_token * request.prompt_tokens), 1),
            slo_tpot_ms=round(wanted.multiple * server.tpot_ms, 1),
        )
        for request in requests
    ]


async def _alone(url: str, model: str, prompt_tokens: int) -> list[Outcome]:
    trace = [TraceRequest(0.0, prompt_tokens, _OUTPUT)]
    answers: list[Outcome] = []
    for number in range(_REPEATS):
        answers += await replay(url, plan(trace, seed=number, salt=f"{url} {prompt_tokens}"), model=model)
    return _checked(url, answers)


def _checked(name: str, outcomes: list[Outcome]) -> list[Outcome]:
    if failed := [outcome.error for outcome in outcomes if outcome.error]:
        raise PartError(f"{name} didn't answer: {failed[0]}")
    return outcomes


def _median(latency: str, outcomes: Sequence[Outcome]) -> float:
    return float(median(getattr(outcome, latency) for outcome in outcomes))
