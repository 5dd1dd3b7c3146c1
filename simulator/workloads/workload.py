"""A workload: requests, their arrival times and objectives, and the pool that serves them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from simulator.arrival import Arrival, Change, Scenario
from simulator.hardware import Hardware, hardware
from simulator.workloads.arrival_times import poisson
from simulator.workloads.capacity import cached_share, half_in_trouble_rps, pool_tokens
from simulator.workloads.changes import steady
from simulator.workloads.draw import Floats, Requests, cap
from simulator.workloads.objectives import MIX, SloMultiple, fastest, objectives

Endpoints = tuple[Hardware, ...]
MAX_REQUESTS = 10_000_000
# Requests in the sample that the workload's medians and means are taken from.
_REFERENCE = 4_096


@dataclass(frozen=True)
class Workload:
    """A workload. `pool` names the hardware of each endpoint.

    `draw` takes (seed, count, endpoints), `times` takes (seed, count, seconds), and `changes` takes
    (seed, seconds, endpoints). A search begins at a rate that is lower by `burstiness`.
    """

    name: str
    description: str
    pool: tuple[str, ...]
    draw: Callable[[int, int, Endpoints], Requests]
    times: Callable[[int, int, float], Floats] = poisson
    changes: Callable[[int, float, int], tuple[Change, ...]] = steady
    mix: tuple[SloMultiple, ...] = MIX
    hash_tokens: int = 64
    burstiness: float = 1.0

    def on(self, *pool: str) -> "Workload":
        """Return the same workload on a pool of other hardware."""
        return replace(self, pool=pool)

    def scenario(self, requests_per_s: float, seed: int, seconds: float) -> Scenario:
        """Return a scenario of about `requests_per_s` times `seconds` requests.

        At another rate the same requests come, with other gaps. Lengths are cut to the limits of the pool's engines.
        ValueError names a rate, seed or time that is out of bounds.
        """
        count = _count(requests_per_s, seed, seconds)
        return Scenario(
            name=self.name,
            arrivals=self._arrivals(self._requests(seed, count), self.times(seed, count, seconds), seed),
            endpoints=self.endpoints,
            hash_tokens=self.hash_tokens,
            changes=self.changes(seed, seconds, len(self.endpoints)),
        )

    @cached_property
    def endpoints(self) -> Endpoints:
        by_name = {name: hardware(name) for name in self.pool}
        return tuple(by_name[name] for name in self.pool)

    @cached_property
    def typical_rps(self) -> float:
        """The rate at which to begin a search: an estimate of where about half of the requests are in trouble.

        The estimate is for steady arrivals, divided by the workload's burstiness.
        """
        cached = cached_share(self._reference, self.hash_tokens, pool_tokens(self.endpoints))
        steady_rps = half_in_trouble_rps(self.endpoints, self.fastest, self._reference, self.mix, cached)
        return steady_rps / self.burstiness

    @cached_property
    def fastest(self) -> Hardware:
        """The hardware whose unloaded latency the objectives are multiples of."""
        return fastest(self.endpoints, self._reference)

    @cached_property
    def median_prompt_tokens(self) -> int:
        return int(np.median(self._reference.prompt_tokens))

    @cached_property
    def _reference(self) -> Requests:
        return self._requests(seed=0, count=_REFERENCE)

    def _requests(self, seed: int, count: int) -> Requests:
        longest = min(min(one.max_model_len, one.num_blocks * one.block_tokens) for one in self.endpoints)
        return cap(self.draw(seed, count, self.endpoints), longest, self.hash_tokens)

    def _arrivals(self, requests: Requests, times: Floats, seed: int) -> tuple[Arrival, ...]:
        asked = objectives(requests, self.mix, self.fastest, self.median_prompt_tokens, seed)
        names = [one.name for one in self.mix]
        count = times.size
        return tuple(
            map(
                Arrival,
                range(count),
                times.tolist(),
                requests.prompt_tokens.tolist(),
                requests.output_tokens.tolist(),
                requests.hashes or [()] * count,
                [names[place] for place in asked.chosen.tolist()],
                asked.ttft_ms.round(3).tolist(),
                asked.tpot_ms.round(3).tolist(),
            )
        )


def _count(requests_per_s: float, seed: int, seconds: float) -> int:
    for name, value in (("requests_per_s", requests_per_s), ("seconds", seconds)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
    if seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed}")
    if requests_per_s * seconds > MAX_REQUESTS:
        raise ValueError(f"requests_per_s times seconds: expected at most {MAX_REQUESTS:,} requests; shorten the time")
    return max(1, round(requests_per_s * seconds))
