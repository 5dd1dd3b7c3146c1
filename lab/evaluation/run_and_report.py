"""A whole evaluation: the runs, the summary, and the report's files."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import click

from lab.bench.figures import cpu, report, write
from lab.evaluation.journal import Journal
from lab.evaluation.plan import COMMON, HALVING, EvaluatedWorkload, EvaluationPlan
from lab.evaluation.report.report import Provenance, write_report
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.statistics import Interval
from lab.evaluation.report.summary import SPEED, Summary, summarise, virtual_requests_per_s
from lab.evaluation.report.targets import verdicts
from lab.evaluation.run import RunFunctions, evaluate
from lab.evaluation.search import SHARES
from lab.evaluation.studies.bounds import FindP50Bounds, latency_bound

_PACKAGES = ("numpy", "onnxruntime", "msgspec")
_SPEED_S = 60.0


@dataclass(frozen=True)
class Subject:
    """The workloads, and the functions that run them and compute bounds.

    `changed_s` returns when `halving` halves an endpoint's speed, given the length of a run. `p50_bounds` returns
    bounds of the end-to-end p50.
    """

    workloads: Mapping[str, EvaluatedWorkload]
    functions: RunFunctions
    changed_s: Callable[[float], float]
    p50_bounds: FindP50Bounds


@dataclass(frozen=True)
class Output:
    folder: Path
    """The folder for evaluation.md and the subfolder `evaluation` with its pictures."""
    points_file: Path
    json_file: Path | None = None
    resume: bool = False
    command: str = field(default="scripts/evaluate.py")


def run_and_report(plan: EvaluationPlan, subject: Subject, output: Output) -> Summary:
    """Run an evaluation, and write its report. Raise JournalError first if the evaluation can't be resumed."""
    journal = Journal(output.points_file, plan, output.resume)
    if journal.stale:
        click.echo(f"the code has changed since {output.points_file} was begun: runs may not be comparable", err=True)
    results = evaluate(plan, subject.workloads, subject.functions, journal)
    changed_s = _changed_s(plan, results, subject)
    summary = summarise(results, changed_s)
    extra = _speed(subject)
    made = Provenance(
        command=output.command,
        wall_s=journal.spent_s,
        cpu=cpu(),
        cores=os.cpu_count() or 1,
        versions={name: version(name) for name in _PACKAGES},
        stale=journal.stale,
        resumed=journal.resumed,
    )
    latency = latency_bound(results, plan.seconds_at, subject.p50_bounds)
    file = write_report(output.folder, plan, results, summary, made, subject.workloads, changed_s, latency)
    _print_and_write(plan, results, summary, extra, output)
    click.echo(f"wrote {file}", err=True)
    return summary


def _changed_s(plan: EvaluationPlan, results: Sequence[WorkloadResult], subject: Subject) -> float | None:
    """Return when the endpoint changes in the runs at the common load; None without the workload."""
    rates = [result.rates[COMMON] for result in results if result.workload == HALVING]
    return subject.changed_s(plan.seconds_at(HALVING, rates[0])) if rates else None


def _speed(subject: Subject) -> dict[str, float]:
    """Measure the simulator's speed by one run in this process, while no other process runs."""
    described = subject.workloads.get(SPEED[0])
    if described is None:
        return {}
    return {
        "virtual_requests_per_s": virtual_requests_per_s(subject.functions.run_point, described.typical_rps, _SPEED_S)
    }


def _print_and_write(
    plan: EvaluationPlan,
    results: Sequence[WorkloadResult],
    summary: Summary,
    extra: Mapping[str, float],
    output: Output,
) -> None:
    report({**extra, **{name: found.mean for name, found in summary.figures.items()}})
    for target, found, verdict in verdicts(summary):
        click.echo(f"{target.name:40} {verdict}: {found}, wanted {target.wanted}")
    for name, reason in summary.left_out.items():
        click.echo(f"{name} was not measured: {reason}", err=True)
    if output.json_file:
        figures = {**extra, **_bounds(summary.figures), **_bounds(_goodputs(results))}
        settings = {
            "workloads": plan.workloads,
            "policies": plan.policies,
            "seeds": plan.seeds,
            "seconds": plan.seconds,
            "requests": plan.requests,
            "rate_ratio": plan.rate_ratio,
            "loads": plan.loads,
            "jobs": plan.jobs,
            "left_out": summary.left_out,
        }
        write(output.json_file, figures, _PACKAGES, settings)


def _goodputs(results: Sequence[WorkloadResult]) -> dict[str, Interval]:
    return {
        f"goodput{share * 100:.0f}_rps.{result.workload}.{policy}": result.goodput_interval(policy, share)
        for result in results
        for policy in result.policies
        for share in SHARES
    }


def _bounds(figures: Mapping[str, Interval]) -> dict[str, float]:
    """Return the means, and the ends of their intervals if they have one."""
    flat: dict[str, float] = {}
    for name, one in figures.items():
        flat[name] = one.mean
        if one.low is not None and one.high is not None:
            flat |= {f"{name}_low": one.low, f"{name}_high": one.high}
    return flat
