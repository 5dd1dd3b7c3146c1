"""Summary figures of the evaluation: medians over workloads, with intervals over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from lab.evaluation.plan import (
    BASE,
    HALVING,
    LLMD_DEFAULT,
    LLMD_PREDICTED,
    ORACLE,
    OURS,
    SHEDDING,
    SHEDDING_ORACLE,
)
from lab.evaluation.replay.point import PointOptions, RunPoint
from lab.evaluation.report.recovery import BOUNDS, Bin, Limits, coverage_after, limits_before, over_seeds, recovery_s
from lab.evaluation.report.results import Measure, WorkloadResult
from lab.evaluation.report.statistics import Interval, mean_interval, median_interval, ratio_interval, ratios

OVER = {
    "goodput_over_round_robin": "round-robin",
    "goodput_over_default": BASE,
    "goodput_over_tuned": "tuned",
    "goodput_over_closed_formula": "closed-formula",
    "goodput_over_reference": "reference",
}
OVER_LLMD = {
    "slo_goodput_over_llmd_default": LLMD_DEFAULT,
    "slo_goodput_over_llmd_predicted": LLMD_PREDICTED,
}
"""The policies of llm-d that ours is compared with, by figure. Only the policy that serves every request is."""
_BOUND_OF = {OURS: ORACLE, SHEDDING: SHEDDING_ORACLE}
SHEDDING_PREFIX = "shedding_"
"""Prefix of a figure's name if the figure is of our policy with shedding."""
TUNED = "tuned"
SHARED_PREFIX = "shared-prefix"
SPEED = ("poisson", "round-robin", 100)
"""Workload, policy and number of endpoints for measuring the simulator's speed."""
_POOL = 8  # number of endpoints that a workload's typical rate is for
_ERRORS: dict[str, Measure] = {
    "ttft_mdape": lambda point: point.ttft_mdape,
    "tpot_mdape": lambda point: point.tpot_mdape,
    "coverage_q90": lambda point: point.coverage_q90,
}


@dataclass
class Summary:
    """Figures by name, and the reasons for missing figures by name."""

    figures: dict[str, Interval] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def summarise(results: Sequence[WorkloadResult], changed_s: float | None) -> Summary:
    """Return the summary. `changed_s` is when an endpoint of the workload `halving` drops to half speed."""
    summary = Summary()
    named = (
        *_goodputs(results, OURS),
        *_medians_over(results, OURS, OVER_LLMD),
        *((SHEDDING_PREFIX + name, found) for name, found in _goodputs(results, SHEDDING)),
        *_at_common_load(results),
        *_tpot_bounds(results),
        *_recovery(results, changed_s),
    )
    for name, found in named:
        if isinstance(found, str):
            summary.left_out[name] = found
        else:
            summary.figures[name] = found
    return summary


def virtual_requests_per_s(run_point: RunPoint, typical_rps: float, seconds: float) -> float:
    """Return the requests that one process simulates per second of wall time, on a large pool."""
    workload, policy, endpoints = SPEED
    rate = typical_rps / 2 * endpoints / _POOL  # half the typical rate, so that the pool isn't overloaded
    point = run_point(workload, rate, 0, policy, seconds, None, PointOptions(endpoints=endpoints))
    return rate * seconds / point.wall_s


Named = tuple[str, Interval | str]


def opponents(ours: str) -> dict[str, str]:
    """Return the policies that `ours` is compared with, by figure. If `ours` sheds, so does the oracle."""
    return OVER | {"goodput_of_oracle": _BOUND_OF[ours]}


def _goodputs(results: Sequence[WorkloadResult], ours: str) -> Iterator[Named]:
    yield from _medians_over(results, ours, opponents(ours))
    reason = _missing(results, ours)
    over_base = () if reason else (result.goodput_ratio(BASE, policy=ours) for result in results)
    yield "worst_goodput_over_default", reason or min(over_base, key=lambda ratio: ratio.mean)


def _medians_over(results: Sequence[WorkloadResult], ours: str, over: Mapping[str, str]) -> Iterator[Named]:
    """Return the goodput of `ours` over that of each policy, by figure: medians over workloads."""
    for name, policy in over.items():
        reason = _missing(results, ours, policy)
        yield name, reason or median_interval([ratios(r.goodput(ours), r.goodput(policy)) for r in results])


def _at_common_load(results: Sequence[WorkloadResult]) -> Iterator[Named]:
    name, shared = "e2e_p50_gain_over_tuned_shared_prefix", [r for r in results if r.workload == SHARED_PREFIX]
    reason = _missing(results, OURS, TUNED) or ("" if shared else f"needs the workload {SHARED_PREFIX}")
    yield name, reason or ratio_interval(*(_e2e_p50(shared[0], policy) for policy in (TUNED, OURS)))
    reason = _missing(results, OURS)
    yield "throughput_over_default", reason or median_interval([ratios(*_throughputs(r)) for r in results])
    for name, measure in _ERRORS.items():
        by_workload = [] if reason else [r.measured(OURS, measure) for r in results]
        complete = [values for values in by_workload if len(values) == len(results[0].seeds)]
        yield name, median_interval(complete, mean_interval) if complete else reason or f"{OURS} made no predictions"


def _tpot_bounds(results: Sequence[WorkloadResult]) -> Iterator[Named]:
    bounds = [result.tpot_bounds for result in results if result.tpot_bounds]
    floors = [100 * one.future.mdape for one in bounds if one.future]
    yield "tpot_floor", Interval(median(floors), 1) if len(floors) == len(results) else "futures were not compared"
    errors = [100 * one.told.told_mdape for one in bounds if one.told]
    reason = "state-aware models were not fitted"
    yield "tpot_mdape_told", Interval(median(errors), 1) if len(errors) == len(results) else reason


def halving_bins(results: Sequence[WorkloadResult]) -> list[list[Bin]]:
    """Return the bins of our policy's runs at the common load, one list per seed; empty without the workload."""
    halving = [result for result in results if result.workload == HALVING and OURS in result.policies]
    return [point.errors_over_time for result in halving for point in result.at_load(OURS)]


def _recovery(results: Sequence[WorkloadResult], changed_s: float | None) -> Iterator[Named]:
    bins = halving_bins(results)
    if changed_s is None or not bins or not all(bins):
        reason = f"needs the workload {HALVING} and predictions of {OURS}"
        yield from ((name, reason) for name in ("recovery_to_before_s", "recovery_s", "recovery_coverage_q90"))
        return
    means = over_seeds(bins)
    yield (
        "recovery_to_before_s",
        Interval(_back_after(means, changed_s, limits_before(means, changed_s)), len(bins)),
    )
    back_s = _back_after(means, changed_s)
    yield "recovery_s", Interval(back_s, len(bins))
    covered = [coverage_after(of_seed, changed_s + back_s) for of_seed in bins]
    known = [value for value in covered if value is not None]
    yield "recovery_coverage_q90", mean_interval(known) if known else "the runs ended before errors recovered"


def _back_after(bins: Sequence[Bin], changed_s: float, limits: Limits = BOUNDS) -> float:
    """Return the time to recovery in s. If errors never recover, return the time to the last bin, a lower bound."""
    found = recovery_s(bins, changed_s, limits)
    return found if found is not None else bins[-1][0] - changed_s


def _missing(results: Sequence[WorkloadResult], *policies: str) -> str:
    lacking = [policy for policy in policies if any(policy not in result.policies for result in results)]
    return f"needs the policy {' and '.join(lacking)}" if lacking else ""


def _e2e_p50(result: WorkloadResult, policy: str) -> list[float]:
    return result.measured(policy, lambda point: point.e2e_ms["p50"])


def _throughputs(result: WorkloadResult) -> tuple[list[float], list[float]]:
    ours, base = (result.measured(policy, lambda point: point.throughput_tokens_per_s) for policy in (OURS, BASE))
    return ours, base
