"""What an evaluation found, by workload."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lab.evaluation.plan import COMMON, OURS
from lab.evaluation.replay.point import PointResult
from lab.evaluation.report.statistics import Interval, geometric_interval, mean_interval, ratio_interval
from lab.evaluation.search import Goodput, Grid
from lab.evaluation.studies.noise_floor import TpotBounds
from lab.evaluation.studies.quality import TargetQuality

Measure = Callable[[PointResult], float | None]


@dataclass(frozen=True)
class WorkloadResult:
    """`goodputs` by policy and share, one for each seed; `rates` by multiple of the common load."""

    workload: str
    description: str
    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    grid: Grid
    goodputs: dict[tuple[str, float], list[Goodput]]
    rates: dict[float, float]
    points: tuple[PointResult, ...]
    quality: tuple[TargetQuality, ...] = ()
    """Of models of each latency, where rows were judged."""
    tpot_bounds: TpotBounds | None = None
    """At the common load, where they were looked for."""

    def goodput(self, policy: str, share: float = 0.9) -> list[float]:
        """Requests/s by seed; where only a bound is known, the bound."""
        return [found.rps for found in self.goodputs[policy, share]]

    def bound(self, policy: str, share: float = 0.9) -> str:
        """Empty, or what the goodput of some seed is known as: at least, or at most."""
        return next((found.bound for found in self.goodputs[policy, share] if found.bound), "")

    def goodput_interval(self, policy: str, share: float) -> Interval:
        return geometric_interval(self.goodput(policy, share))

    def goodput_ratio(self, over: str, share: float = 0.9, policy: str = OURS) -> Interval:
        return ratio_interval(self.goodput(policy, share), self.goodput(over, share))

    def at_load(self, policy: str, load: float = COMMON) -> list[PointResult]:
        """The runs at a multiple of the common load, in the order of the seeds."""
        rate = self.rates[load]
        found = {p.seed: p for p in self.points if p.policy == policy and p.requests_per_s == rate}
        return [found[seed] for seed in self.seeds]

    def measured(self, policy: str, measure: Measure, load: float = COMMON) -> list[float]:
        """A measure by seed, without the runs that have none."""
        values = [measure(point) for point in self.at_load(policy, load)]
        return [value for value in values if value is not None]

    def mean(self, policy: str, measure: Measure, load: float = COMMON) -> float | None:
        values = self.measured(policy, measure, load)
        return fmean(values) if values else None


def attainment(result: WorkloadResult, policy: str, load: float) -> Interval:
    return mean_interval(result.measured(policy, lambda point: point.attainment, load))


def share_of_time(results: Sequence[WorkloadResult]) -> dict[str, float]:
    """Wall seconds of all runs, by policy."""
    spent: dict[str, float] = {}
    for result in results:
        for point in result.points:
            spent[point.policy] = spent.get(point.policy, 0.0) + point.wall_s
    return spent
