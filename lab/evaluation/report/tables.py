"""The evaluation's tables in Markdown."""

from collections.abc import Sequence

from lab.evaluation.plan import BASE, COMMON, OURS
from lab.evaluation.replay.point import PointResult
from lab.evaluation.report.results import Measure, WorkloadResult, attainment
from lab.evaluation.report.statistics import Interval, mean_interval
from lab.evaluation.report.summary import Summary
from lab.evaluation.report.targets import verdicts
from lab.evaluation.search import SHARES
from lab.markdown import table

_PERCENTILES = ("p50", "p90", "p95", "p99")
_SIGNS = {"": "", "at least": "≥ ", "at most": "≤ "}


def targets_table(summary: Summary) -> str:
    rows = [
        (f"{target.what} (`{target.name}`)", target.wanted, found, verdict)
        for target, found, verdict in verdicts(summary)
    ]
    return table(("figure", "wanted", "found", "verdict"), rows)


def goodput_table(result: WorkloadResult) -> str:
    """Return the table of goodputs, with intervals: requests/s, and ratios to our policy and to the base policy."""
    head = ["policy"]
    for share in SHARES:
        head += [f"goodput at {share:.0%}, requests/s", f"{OURS} / policy", f"policy / {BASE}"]
    return table(head, [[policy, *_goodputs(result, policy)] for policy in result.policies])


def _goodputs(result: WorkloadResult, policy: str) -> list[str]:
    cells: list[str] = []
    for share in SHARES:
        cells.append(_SIGNS[result.bound(policy, share)] + result.goodput_interval(policy, share).text())
        ours = "-" if policy == OURS or OURS not in result.policies else _ratio(result, OURS, policy, share)
        cells += [ours, "-" if policy == BASE else _ratio(result, policy, BASE, share)]
    return cells


def _ratio(result: WorkloadResult, policy: str, over: str, share: float) -> str:
    unsure = any(result.bound(name, share) for name in (policy, over))
    return result.goodput_ratio(over, share, policy).text() + (" (of bounds)" if unsure else "")


def latency_table(result: WorkloadResult, load: float = COMMON) -> str:
    """Return the table of latency percentiles at a multiple of the common load, as means over seeds."""
    head = (
        "policy",
        *(f"{name} {'/'.join(p[1:] for p in _PERCENTILES)}, ms" for name in ("TTFT", "TPOT", "end to end")),
    )
    rows = [
        (policy, *(_percentiles(result.at_load(policy, load), name) for name in ("ttft_ms", "tpot_ms", "e2e_ms")))
        for policy in result.policies
    ]
    return table(head, rows)


def _percentiles(points: Sequence[PointResult], name: str) -> str:
    means = [mean_interval([getattr(point, name)[p] for point in points]).mean for p in _PERCENTILES]
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in means)


def load_table(result: WorkloadResult, load: float = COMMON) -> str:
    """Return the table of all other measurements at a multiple of the common load."""
    columns: dict[str, Measure] = {
        "output tokens/s": lambda point: point.throughput_tokens_per_s,
        "fairness": lambda point: point.fairness,
        "cached share": lambda point: point.cached_share,
        "preemptions": lambda point: point.preemptions,
        "shed requests": lambda point: point.shed,
        "µs per decision": lambda point: point.decision_us,
        "TTFT error, %": lambda point: point.ttft_mdape,
        "TPOT error, %": lambda point: point.tpot_mdape,
        "coverage, %": lambda point: point.coverage_q90,
    }
    rows = []
    for policy in result.policies:
        values = [result.mean(policy, measure, load) for measure in columns.values()]
        rows.append((policy, _percent(attainment(result, policy, load)), *(_number(value) for value in values)))
    return table(("policy", "attainment, %", *columns), rows)


def class_table(result: WorkloadResult) -> str:
    """Return the table of attainment by class of objectives at the common load, in percent."""
    classes = sorted({name for point in result.at_load(BASE) for name in point.attainment_by_class})
    rows = []
    for policy in result.policies:
        points = result.at_load(policy)
        found = [[p.attainment_by_class[name] for p in points if name in p.attainment_by_class] for name in classes]
        rows.append((policy, *(_percent(mean_interval(values)) if values else "-" for values in found)))
    return table(("policy", *classes), rows)


def quality_table(results: Sequence[WorkloadResult]) -> str:
    """Return the table of each kind of model and the noise floor, by workload and latency."""
    head = (
        "workload",
        "latency",
        "model",
        "median's error, %",
        "upper quantile's error, %",
        "pinball loss",
        "coverage, %",
        "bias",
    )
    rows = []
    for result in results:
        for one in result.quality:
            key = (result.workload, one.target.upper())
            for q in one.models:
                errors = (f"{100 * q.mdape:.1f}", f"{100 * q.upper_mdape:.1f}", f"{q.pinball:.4f}")
                rows.append((*key, q.model, *errors, f"{100 * q.coverage:.1f}", f"{q.bias:+.3f}"))
            if one.floor:
                name = f"noise floor ({one.floor.method})"
                rows.append((*key, name, f"{100 * one.floor.mdape:.1f}", "-", f"{one.floor.pinball:.4f}", "-", "-"))
    return table(head, rows)


def _percent(one: Interval) -> str:
    low, high = one.ends
    return Interval(100 * one.mean, one.seeds, *((100 * low, 100 * high) if one.low is not None else ())).text()


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
