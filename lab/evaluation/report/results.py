"""The results of an evaluation, by workload."""

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
    """The results on one workload.

    `goodputs` has one per seed, by policy and share. `rates` has requests/s, by multiple of the common load.
    """

    workload: str
    description: str
    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    grid: Grid
    goodputs: dict[tuple[str, float], list[Goodput]]
    rates: dict[float, float]
    points: tuple[PointResult, ...]
    quality: tuple[TargetQuality, ...] = ()
    """The prediction quality for each latency; empty if no rows were judged."""
    tpot_bounds: TpotBounds | None = None
    """The bounds at the common load; None if they weren't computed."""

    def goodput(self, policy: str, share: float = 0.9) -> list[float]:
        """Return requests/s by seed. If only a bound is known, it is the bound."""
        return [found.rps for found in self.goodputs[policy, share]]

    def bound(self, policy: str, share: float = 0.9) -> str:
        """Return "at least" or "at most" if some seed's goodput is only a bound, else an empty string."""
        return next((found.bound for found in self.goodputs[policy, share] if found.bound), "")

    def goodput_interval(self, policy: str, share: float) -> Interval:
        return geometric_interval(self.goodput(policy, share))

    def goodput_ratio(self, over: str, share: float = 0.9, policy: str = OURS) -> Interval:
        return ratio_interval(self.goodput(policy, share), self.goodput(over, share))

    def at_load(self, policy: str, load: float = COMMON) -> list[PointResult]:
        """Return the runs at a multiple of the common load, in the order of the seeds."""
        rate = self.rates[load]
        found = {p.seed: p for p in self.points if p.policy == policy and p.requests_per_s == rate}
        return [found[seed] for seed in self.seeds]

    def measured(self, policy: str, measure: Measure, load: float = COMMON) -> list[float]:
        """Return a measure by seed, without the runs that have none."""
        values = [measure(point) for point in self.at_load(policy, load)]
        return [value for value in values if value is not None]

    def mean(self, policy: str, measure: Measure, load: float = COMMON) -> float | None:
        values = self.measured(policy, measure, load)
        return fmean(values) if values else None


def attainment(result: WorkloadResult, policy: str, load: float) -> Interval:
    return mean_interval(result.measured(policy, lambda point: point.attainment, load))


def share_of_time(results: Sequence[WorkloadResult]) -> dict[str, float]:
    """Return the wall time of all runs in s, by policy."""
    spent: dict[str, float] = {}
    for result in results:
        for point in result.points:
            spent[point.policy] = spent.get(point.policy, 0.0) + point.wall_s
    return spent
