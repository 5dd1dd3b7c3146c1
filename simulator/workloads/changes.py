"""Endpoints that become slower while requests come; which ones, the seed decides."""

from simulator.arrival import Change
from simulator.workloads.draw import stream

STALL_S = 20.0
# Not for ever, so that every run ends; yet a step that takes 10 ms takes longer than any stall.
STALL_SLOWDOWN = 10_000.0
HALF_SPEED = 2.0
DEGRADING_ENDPOINTS = 2
DEGRADING_STEPS = 10
# When an endpoint halves its speed, as a share of the scenario: there is time to learn before it, and after it.
HALVING_AT = 0.4


def degrading(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Two endpoints (one of a pool of two) go down to half speed, step by step from a fifth to four fifths."""
    chosen = _choose(seed, endpoints, min(DEGRADING_ENDPOINTS, max(1, endpoints // 2)))
    return tuple(
        Change(seconds * (0.2 + 0.6 * (step - 1) / (DEGRADING_STEPS - 1)), endpoint, 1 + step / DEGRADING_STEPS)
        for step in range(1, DEGRADING_STEPS + 1)
        for endpoint in chosen
    )


def stall(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """One endpoint stands still in the middle, for 20 s, or a quarter of a scenario that is shorter than 80 s."""
    (endpoint,) = _choose(seed, endpoints, 1)
    length_s = min(STALL_S, seconds / 4)
    start_s = (seconds - length_s) / 2
    return Change(start_s, endpoint, STALL_SLOWDOWN), Change(start_s + length_s, endpoint, 1.0)


def halving(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """One endpoint goes down to half speed at once, and stays there."""
    (endpoint,) = _choose(seed, endpoints, 1)
    return (Change(seconds * HALVING_AT, endpoint, HALF_SPEED),)


def steady(seed: int, seconds: float, endpoints: int) -> tuple[Change, ...]:
    """Nothing changes."""
    return ()


def _choose(seed: int, endpoints: int, count: int) -> list[int]:
    chosen: list[int] = stream(seed, "changes").choice(endpoints, count, replace=False).tolist()
    return sorted(chosen)
