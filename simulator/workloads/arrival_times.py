"""Arrival processes: functions that return `count` arrival times in order, from 0 to below `seconds`.

`poisson` and `bursts` take (seed, count, seconds). The same seed gives the same pattern at any rate.
"""

import numpy as np

from simulator.workloads.draw import Floats, stream

# Mean length of the time between bursts.
CALM_S = 20.0
# Mean length of a burst.
BURST_S = 5.0
# Rate in a burst, as a multiple of the rate between bursts.
BURST_RATE = 4.0


def poisson(seed: int, count: int, seconds: float) -> Floats:
    """Return times of a Poisson process, conditioned on `count` arrivals within `seconds`."""
    return _spread(stream(seed, "arrivals").exponential(size=count + 1), seconds)


def bursts(seed: int, count: int, seconds: float) -> Floats:
    """Return times of a Poisson process whose rate switches between calm and burst.

    Calm and burst have exponential lengths. The length of a burst doesn't depend on the rate: each time of a steady
    process is moved to where the switched process has reached the same share of its arrivals.
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
    """Return times with these gaps, scaled to fill `seconds`. `gaps[i]` is the time after request i, in any unit.

    If all gaps are 0, the times are evenly spaced.
    """
    if not gaps.any():
        gaps = np.ones_like(gaps)
    return _spread(np.concatenate(([0.0], gaps)), seconds)


def _spread(gaps: Floats, seconds: float) -> Floats:
    """Return the times at which each gap but the last ends, scaled so that the last one ends at `seconds`."""
    ends = np.cumsum(gaps)
    times: Floats = np.minimum(ends[:-1] * (seconds / ends[-1]), np.nextafter(seconds, 0.0))
    return times
