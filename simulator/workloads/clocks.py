"""When requests come: `count` times in order, from 0 on and below `seconds`.

Each takes (seed, count, seconds). The same seed gives the same pattern at any rate.
"""

import numpy as np

from simulator.workloads.draw import Floats, stream

# Bursts: mean stays in the two states, and how many times the calm state's rate comes in a burst.
CALM_S = 20.0
BURST_S = 5.0
BURST_RATE = 4.0


def poisson(seed: int, count: int, seconds: float) -> Floats:
    """Independent of each other: a Poisson process, given that `count` requests come in the time."""
    return _spread(stream(seed, "arrivals").exponential(size=count + 1), seconds)


def bursts(seed: int, count: int, seconds: float) -> Floats:
    """A Poisson process whose rate is switched between calm and burst; stays have exponential lengths.

    A burst lasts as long at any rate: the uniform times that a steady process would have are moved to where the
    switched one has brought as large a share of its requests.
    """
    rng = stream(seed, "bursts")
    switches, arrived, in_burst = [0.0], [0.0], False
    while switches[-1] < seconds:
        stay = rng.exponential(BURST_S if in_burst else CALM_S)
        switches.append(switches[-1] + stay)
        arrived.append(arrived[-1] + stay * (BURST_RATE if in_burst else 1.0))
        in_burst = not in_burst
    arrived_in_all = float(np.interp(seconds, switches, arrived))
    return np.minimum(np.interp(poisson(seed, count, arrived_in_all), arrived, switches), np.nextafter(seconds, 0.0))


def by_gaps(gaps: Floats, seconds: float) -> Floats:
    """`gaps[i]` is the time that passes after request i, in any unit; even gaps when none passes at all."""
    if not gaps.any():
        gaps = np.ones_like(gaps)
    return _spread(np.concatenate(([0.0], gaps)), seconds)


def _spread(gaps: Floats, seconds: float) -> Floats:
    """Times at which each gap but the last ends, stretched so that the last one ends at `seconds`."""
    ends = np.cumsum(gaps)
    times: Floats = np.minimum(ends[:-1] * (seconds / ends[-1]), np.nextafter(seconds, 0.0))
    return times
