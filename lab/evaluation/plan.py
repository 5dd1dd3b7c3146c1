"""The plan of an evaluation: policies, workloads, seeds and loads."""

from dataclasses import dataclass
from typing import Protocol

from simulator.workloads.objectives import SloMultiple

POLICIES = (
    "random",
    "round-robin",
    "least-requests",
    "least-tokens",
    "p2c",
    "default",
    "tuned",
    "closed-formula",
    "llmd-default",
    "reference",
    "llmd-predicted",
    "slo",
    "slo-shedding",
    "informed",
    "oracle",
    "oracle-shedding",
)
OURS = "slo"
SHEDDING = "slo-shedding"
"""Our policy with the option to shed requests."""
INFORMED, ORACLE, SHEDDING_ORACLE = "informed", "oracle", "oracle-shedding"
"""The policies that know more than a router can. Only the last one sheds."""
LLMD_DEFAULT, LLMD_PREDICTED = "llmd-default", "llmd-predicted"
"""llm-d's own configurations of today, which this project's picker runs."""
PREDICTING = ("reference", LLMD_PREDICTED, OURS, SHEDDING)
"""The policies that use predictions. Their models are refitted during a run."""
BASE = "default"
"""The policy that defines a workload's common load. It is part of every evaluation."""
COMMON = 1.0
"""The multiple of the common load at which most figures are measured."""
COMMON_IF_NEVER = 0.5
"""The common load, in typical rates, of a workload on which the base policy attains 90% at no rate."""
OTHER_TRAFFIC = 1_000_000
"""A seed for traffic that isn't judged: models, weights and expected lengths come from it."""
HALVING = "halving"
LEAST_SECONDS = {HALVING: 120.0}
"""The shortest runs, by workload. After its change, a run of halving must have time for a minute of recovery."""


@dataclass(frozen=True)
class Preparation:
    """The preparation of a workload's runs: tuned weights, and models that learn for `learning_s` at each load."""

    tunes: bool
    learning_s: float

    def __str__(self) -> str:
        return f"{'tuned' if self.tunes else 'even'}-{self.learning_s:g}s"


class EvaluatedWorkload(Protocol):
    """The properties of a workload that the evaluation needs."""

    @property
    def description(self) -> str: ...

    @property
    def typical_rps(self) -> float: ...

    @property
    def mix(self) -> tuple[SloMultiple, ...]: ...


@dataclass(frozen=True)
class EvaluationPlan:
    """The plan of an evaluation.

    Besides the search, every policy is run at `loads`, in multiples of the common load. The models at the start of a
    run have learnt for `learning_s` at each of several loads.
    """

    workloads: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float
    requests: int
    jobs: int
    rate_ratio: float
    loads: tuple[float, ...]
    learning_s: float = 0.0
    judged_rows: tuple[str, ...] = ()
    """The workloads on whose rows models are compared with the noise floor."""
    has_bounds: bool = False
    """If set, compute the bounds of TPOT prediction for each workload."""

    @property
    def preparation(self) -> Preparation:
        """The preparation that the plan's policies need."""
        return Preparation("tuned" in self.policies, self.learning_s if set(PREDICTING) & set(self.policies) else 0.0)

    def seconds_at(self, workload: str, requests_per_s: float) -> float:
        """Return a run's length in s. At low rates it is prolonged to about `requests` requests, against noise."""
        return max(self.seconds, LEAST_SECONDS.get(workload, 0.0), round(self.requests / requests_per_s, 3))
