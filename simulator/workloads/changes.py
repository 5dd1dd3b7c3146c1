"""Endpoints that become slower while requests come. The seed decides which endpoints."""

from simulator.arrival import Change
from simulator.workloads.draw import stream

STALL_S = 20.0
# Large enough that a step of 10 ms outlasts any stall, and finite so that every run ends.
STALL_SLOWDOWN = 10_000.0
HALF_SPEED = 2.0
DEGRADING_ENDPOINTS = 2
DEGRADING_STEPS = 10
# The moment of the drop to half speed, as a share of the scenario. Models have time to learn before it and after it.
HALVING_AT = 0.4


def degrading(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Slow two endpoints (one in a pool of fewer than four) down to half speed, in ten steps.

    The steps are spread evenly over the time from one fifth to four fifths of the scenario.
    """
    chosen = _choose(seed, endpoints, min(DEGRADING_ENDPOINTS, max(1, endpoints // 2)))
    return tuple(
        Change(seconds * (0.2 + 0.6 * (step - 1) / (DEGRADING_STEPS - 1)), endpoint, 1 + step / DEGRADING_STEPS)
        for step in range(1, DEGRADING_STEPS + 1)
        for endpoint in chosen
    )


def stall(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Stall one endpoint in the middle for 20 s, or for a quarter of a scenario shorter than 80 s."""
    (endpoint,) = _choose(seed, endpoints, 1)
    length_s = min(STALL_S, seconds / 4)
    start_s = (seconds - length_s) / 2
    return Change(start_s, endpoint, STALL_SLOWDOWN), Change(start_s + length_s, endpoint, 1.0)


def halving(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Slow one endpoint down to half speed in one step, until the end."""
    (endpoint,) = _choose(seed, endpoints, 1)
    return (Change(seconds * HALVING_AT, endpoint, HALF_SPEED),)


def steady(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Change nothing."""
    return ()


def _choose(seed: int, endpoints: int, count: int) -> list[int]:
    chosen: list[int] = stream(seed, "changes").choice(endpoints, count, replace=False).tolist()
    return sorted(chosen)
