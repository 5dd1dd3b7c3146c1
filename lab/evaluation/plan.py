"""What an evaluation covers."""

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
    "reference",
    "slo",
    "slo-shedding",
    "informed",
    "oracle",
    "oracle-shedding",
)
OURS = "slo"
SHEDDING = "slo-shedding"
"""Ours, as it is where nobody minds that requests are refused."""
INFORMED, ORACLE, SHEDDING_ORACLE = "informed", "oracle", "oracle-shedding"
"""Those that know more than a router can. Only the last one sheds."""
PREDICTING = ("reference", OURS, SHEDDING)
"""The policies that predict, by models that go on to be refitted."""
BASE = "default"
"""The policy that the loads of a workload are stated by: each evaluation has it."""
COMMON = 1.0
IF_NEVER = 0.5
"""The common load, in typical rates, of a workload in which the base policy attains 90% at no rate."""
OTHER_TRAFFIC = 1_000_000
"""A seed: no run is judged on the traffic that its models, weights or expectations come from."""
HALVING = "halving"
LEAST_SECONDS = {HALVING: 120.0}
"""Whether errors are back within a minute after three fifths of a run is told by no shorter one."""


@dataclass(frozen=True)
class Preparation:
    """What is made for a workload before its runs: tuned weights, and models of so many seconds a load, or none."""

    tunes: bool
    learning_s: float

    def __str__(self) -> str:
        return f"{'tuned' if self.tunes else 'even'}-{self.learning_s:g}s"


class Described(Protocol):
    """What the evaluation asks of a workload."""

    @property
    def description(self) -> str: ...

    @property
    def typical_rps(self) -> float: ...

    @property
    def mix(self) -> tuple[SloMultiple, ...]: ...


@dataclass(frozen=True)
class EvaluationPlan:
    """`loads` are multiples of the rate at which `default` attains 90%, at which every policy is run as well.

    Models that policies start from have seen each of some loads for `learning_s`.
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
    """Workloads whose rows models are judged on, against the noise floor."""
    has_bounds: bool = False
    """Whether it is found for each workload how well TPOT could be predicted."""

    @property
    def preparation(self) -> Preparation:
        """What the policies of the plan need."""
        return Preparation("tuned" in self.policies, self.learning_s if set(PREDICTING) & set(self.policies) else 0.0)

    def seconds_at(self, workload: str, requests_per_s: float) -> float:
        """A run's length: at a low rate it is prolonged until about `requests` come, lest noise decides."""
        return max(self.seconds, LEAST_SECONDS.get(workload, 0.0), round(self.requests / requests_per_s, 3))
