"""Bounds of what a policy could gain: limits of any policy, and policies that know more than a router can."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lab.evaluation.plan import COMMON, INFORMED, ORACLE, OURS, SHEDDING, SHEDDING_ORACLE
from lab.evaluation.policies.quickest import Quickest
from lab.evaluation.replay.replay import WARM_UP_SHARE, Run, replay, scenario_of
from lab.evaluation.report.recovery import over_seeds, periods
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.statistics import Interval, median_interval, ratio_interval, ratios
from lab.evaluation.report.summary import OVER, SHARED_PREFIX, TUNED, halving_bins
from lab.markdown import table
from simulator.arrival import Scenario
from simulator.workloads.objectives import unloaded_tpot_ms


@dataclass(frozen=True)
class P50Bounds:
    """End-to-end p50s in ms: a lower bound for any policy, and that of the policy `quickest`."""

    least_ms: float
    quickest_ms: float


FindP50Bounds = Callable[[str, float, int, float], P50Bounds]
"""Called with workload, requests/s, seed and seconds."""
Seconds = Callable[[str, float], float]
"""Called with workload and requests/s; returns the length of a run in s."""
_BOUNDED = (OURS, INFORMED, ORACLE, SHEDDING, SHEDDING_ORACLE)


@dataclass(frozen=True)
class LatencyBound:
    """End-to-end p50s at the common load, in ms by seed: those of `tuned`, of `quickest`, and lower bounds."""

    tuned_ms: Sequence[float]
    least_ms: Sequence[float]
    quickest_ms: Sequence[float]

    @property
    def most(self) -> Interval:
        """The largest factor by which any policy could be faster than `tuned`."""
        return ratio_interval(self.tuned_ms, self.least_ms)

    @property
    def gain(self) -> Interval:
        """The factor by which `quickest` is faster than `tuned`."""
        return ratio_interval(self.tuned_ms, self.quickest_ms)


def p50_bounds(workload: str, requests_per_s: float, seed: int, seconds: float) -> P50Bounds:
    scenario = scenario_of(workload, requests_per_s, seed, seconds)
    quickest = replay(scenario, Run(Quickest(seed), None, {}), "quickest", requests_per_s, seed)
    return P50Bounds(_least_e2e_p50_ms(scenario), quickest.e2e_ms["p50"])


def _least_e2e_p50_ms(scenario: Scenario) -> float:
    """Return a lower bound of the end-to-end p50: each token takes a step that decodes one sequence alone.

    The prompt takes no time, as if it were cached. The bound is that of the fastest hardware in the pool.
    """
    judged = [a for a in scenario.arrivals if a.arrival_s >= WARM_UP_SHARE * scenario.arrivals[-1].arrival_s]
    prompts = np.array([arrival.prompt_tokens for arrival in judged])
    outputs = np.array([arrival.output_tokens for arrival in judged])
    kinds = {hardware.name: hardware for hardware in scenario.endpoints}.values()
    return min(float(np.median(unloaded_tpot_ms(hardware, prompts, outputs) * outputs)) for hardware in kinds)


def latency_bound(results: Sequence[WorkloadResult], seconds_at: Seconds, find: FindP50Bounds) -> LatencyBound | None:
    """Return the bounds; None without the workload `shared-prefix` or the policy `tuned`."""
    result = next((one for one in results if one.workload == SHARED_PREFIX and TUNED in one.policies), None)
    if result is None:
        return None
    rate = result.rates[COMMON]
    seconds = seconds_at(SHARED_PREFIX, rate)
    bounds = [find(SHARED_PREFIX, rate, seed, seconds) for seed in result.seeds]
    return LatencyBound(
        tuned_ms=result.measured(TUNED, lambda point: point.e2e_ms["p50"]),
        least_ms=[one.least_ms for one in bounds],
        quickest_ms=[one.quickest_ms for one in bounds],
    )


def goodput_bounds_table(results: Sequence[WorkloadResult]) -> str:
    """Return the table of the targets' goodput ratios, for our policies and for those that know more."""
    known = [policy for policy in _BOUNDED if all(policy in result.policies for result in results)]
    over = [policy for policy in OVER.values() if policy in results[0].policies]
    rows = [(policy, *(_median_ratio(results, one, policy) for one in known)) for policy in over]
    return table(("goodput at 90% over that of", *known), rows)


def tpot_bounds_table(results: Sequence[WorkloadResult]) -> str:
    """Return the table of TPOT errors and their bounds, by workload; empty if no bounds were computed."""
    rows = []
    for result in results:
        if (bounds := result.tpot_bounds) and OURS in result.policies:
            future, state_aware = bounds.future, bounds.told
            errors = [future.mdape if future else None]
            errors += [state_aware.ours_mdape, state_aware.told_mdape] if state_aware else [None, None]
            ours = result.mean(OURS, lambda point: point.tpot_mdape)
            rows.append((result.workload, _percent(ours), *(_percent(one and 100 * one) for one in errors)))
    head = (
        "workload",
        f"error of {OURS}, %",
        "error due to the unknown future, %",
        "our models in one long run, %",
        "state-aware models, %",
    )
    return table(head, rows) if rows else ""


def recovery_table(results: Sequence[WorkloadResult], changed_s: float | None) -> str:
    """Return the table of our policy's errors by period, on the changed endpoint; empty without the workload."""
    bins = halving_bins(results)
    if changed_s is None or not bins:
        return ""
    rows = [(f"{at_s:.0f}", *map(_percent, values)) for at_s, *values in periods(over_seeds(bins), changed_s)]
    return table(("seconds since the change", "TTFT error, %", "TPOT error, %", "coverage, %"), rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _median_ratio(results: Sequence[WorkloadResult], policy: str, over: str) -> str:
    return median_interval([ratios(result.goodput(policy), result.goodput(over)) for result in results]).text()
