"""The loop's load: a workload on any hardware, with requests short enough for a demonstration."""

from dataclasses import dataclass, replace

import numpy as np

from simulator.arrival import Scenario
from simulator.workloads import Workload
from simulator.workloads.draw import Requests
from simulator.workloads.time_scale import scale_time
from simulator.workloads.workload import Endpoints

# Longer requests are cut to these lengths, so that they end within a phase of some ten seconds.
MAX_PROMPT_TOKENS, MAX_OUTPUT_TOKENS = 2_000, 120


@dataclass(frozen=True)
class OfferedLoad:
    """A workload at a rate. Servers run at `speed_factor` times their hardware's speed.

    `requests_per_s` is in wall-clock time.
    """

    workload: Workload
    requests_per_s: float
    speed_factor: float

    def at(self, share: float) -> "OfferedLoad":
        """Return a load with `share` times the request rate."""
        return replace(self, requests_per_s=self.requests_per_s * share)

    def scenario(self, seed: int, seconds: float) -> Scenario:
        """Return a scenario with times and objectives in wall-clock time."""
        at_full_speed = self.workload.scenario(
            self.requests_per_s / self.speed_factor, seed, seconds * self.speed_factor
        )
        return scale_time(at_full_speed, self.speed_factor)


def shorten(
    workload: Workload, max_prompt_tokens: int = MAX_PROMPT_TOKENS, max_output_tokens: int = MAX_OUTPUT_TOKENS
) -> Workload:
    """Return the workload with prompts and outputs cut to these lengths, in tokens."""

    def draw(seed: int, count: int, endpoints: Endpoints) -> Requests:
        drawn = workload.draw(seed, count, endpoints)
        pieces = max_prompt_tokens // workload.hash_tokens
        return replace(
            drawn,
            prompt_tokens=np.minimum(drawn.prompt_tokens, max_prompt_tokens),
            output_tokens=np.minimum(drawn.output_tokens, max_output_tokens),
            hashes=[hashes[:pieces] for hashes in drawn.hashes],
        )

    return replace(workload, draw=draw)
