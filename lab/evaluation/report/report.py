"""The evaluation's report, docs/evaluation.md: results, method and assumptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lab.evaluation.plan import BASE, COMMON, HALVING, OURS, EvaluatedWorkload, EvaluationPlan
from lab.evaluation.report import plots
from lab.evaluation.report.levels import LEVELS, write_levels
from lab.evaluation.report.method import (
    ASSUMPTIONS,
    BOUNDS,
    LATENCY_BOUND,
    METHOD,
    OBJECTIVES,
    QUALITY,
    RECOVERY,
    TPOT_BOUNDS,
    TRIED,
)
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.summary import Summary
from lab.evaluation.report.tables import (
    class_table,
    goodput_table,
    latency_table,
    load_table,
    quality_table,
    targets_table,
)
from lab.evaluation.studies.bounds import LatencyBound, goodput_bounds_table, recovery_table, tpot_bounds_table
from lab.markdown import section_of, table, with_section
from simulator.workloads.objectives import SloMultiple

NAME = "evaluation"
REAL_ENGINES, AFTER_REAL_ENGINES = "On real engines", "Bounds"


@dataclass(frozen=True)
class Provenance:
    """The command and machine of an evaluation. `stale`: some runs were made by an earlier version of the code."""

    command: str
    wall_s: float
    cpu: str
    cores: int
    versions: Mapping[str, str]
    stale: bool = False
    resumed: bool = False


def write_report(
    folder: Path,
    plan: EvaluationPlan,
    results: Sequence[WorkloadResult],
    summary: Summary,
    made: Provenance,
    workloads: Mapping[str, EvaluatedWorkload],
    changed_s: float | None,
    latency: LatencyBound | None,
) -> Path:
    """Write evaluation.md into `folder`, and its pictures and levels.csv into `folder`/evaluation.

    Return the path of evaluation.md.
    """
    pictures = folder / NAME
    pictures.mkdir(parents=True, exist_ok=True)
    sections = [
        _head(plan, made),
        "## Targets\n\n" + targets_table(summary) + _left_out(summary),
        "## Bounds\n\n" + _bounds(results, summary, changed_s, latency),
        "## Method\n\n" + METHOD,
        "## Objectives\n\n" + _objectives(plan, workloads),
        "## Assumptions\n\n" + ASSUMPTIONS,
        "## Over all workloads\n\n" + _overview(results),
        "## What was tried\n\n" + TRIED,
        *_quality(results),
        *(_workload(result, pictures, changed_s if result.workload == HALVING else None) for result in results),
    ]
    write_levels(pictures / LEVELS, results)
    file = folder / f"{NAME}.md"
    # Another command measures on real engines, and puts its section into this page.
    real = section_of(file.read_text(), REAL_ENGINES) if file.exists() else ""
    page = "\n\n".join(sections) + "\n"
    file.write_text(with_section(page, REAL_ENGINES, real, before=AFTER_REAL_ENGINES) if real else page)
    return file


def _head(plan: EvaluationPlan, made: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    several = len(plan.seeds) > 1
    seeds = f"There are {len(plan.seeds)} seeds." if several else "There is one seed, so there are no intervals."
    notes = []
    if made.resumed:
        notes.append("The evaluation was interrupted and resumed; the time is the sum of all parts.")
    if made.stale:
        notes.append("**Some runs were made by an earlier version of the code.**")
    return (
        "# Evaluation of all policies\n\n"
        "This page compares every routing policy on every workload in virtual time. "
        f"It was written by `{made.command}` in {_duration(made.wall_s)}, with {plan.jobs} processes on "
        f"{made.cores} cores of {made.cpu or 'an unnamed CPU'} ({versions}). "
        f"Each run has arrivals for {plan.seconds:g} s, or for as long as {plan.requests:,} requests take to arrive if "
        f"that is longer. {seeds} " + " ".join(notes)
    ).rstrip()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _left_out(summary: Summary) -> str:
    return "".join(f"\n\n`{name}` was not measured: {reason}." for name, reason in summary.left_out.items())


def _bounds(
    results: Sequence[WorkloadResult], summary: Summary, changed_s: float | None, latency: LatencyBound | None
) -> str:
    text = BOUNDS + "\n\n" + goodput_bounds_table(results)
    if tpot := tpot_bounds_table(results):
        text += "\n\n" + TPOT_BOUNDS + "\n\n" + tpot
    if recovered := recovery_table(results, changed_s):
        as_before_s = summary.figures["recovery_to_before_s"].text()
        text += "\n\n" + RECOVERY.format(as_before_s=as_before_s) + "\n\n" + recovered
    if latency is None:
        return text
    return text + "\n\n" + LATENCY_BOUND + "\n\n" + _latency_bound(latency)


def _latency_bound(latency: LatencyBound) -> str:
    tuned_ms, least_ms, quickest_ms = map(fmean, (latency.tuned_ms, latency.least_ms, latency.quickest_ms))
    rows = (
        ("tuned", f"{tuned_ms:,.0f}", "-"),
        ("quickest", f"{quickest_ms:,.0f}", latency.gain.text()),
        ("lower bound", f"{least_ms:,.0f}", latency.most.text()),
    )
    return table(("policy", "end-to-end p50, ms", "times as fast as tuned"), rows)


def _objectives(plan: EvaluationPlan, workloads: Mapping[str, EvaluatedWorkload]) -> str:
    """Return the table of objectives. Workloads with the same classes share their rows."""
    by_mix: dict[tuple[SloMultiple, ...], list[str]] = {}
    for name in plan.workloads:
        by_mix.setdefault(workloads[name].mix, []).append(name)
    rows = [
        (", ".join(names), one.name, f"{one.share:.0%}", f"{one.ttft:g}", f"{one.tpot:g}")
        for mix, names in by_mix.items()
        for one in mix
    ]
    head = ("workloads", "class", "share of requests", "TTFT multiple", "TPOT multiple")
    return OBJECTIVES + "\n\n" + table(head, rows)


def _overview(results: Sequence[WorkloadResult]) -> str:
    """Return each policy's goodput at 90% relative to the base policy's, by workload."""
    policies = [policy for policy in results[0].policies if policy != BASE]
    rows = [
        (f"[{r.workload}](#{r.workload})", *(f"{r.goodput_ratio(BASE, policy=policy).mean:.2f}" for policy in policies))
        for r in results
    ]
    return (
        f"The table has goodput at 90% relative to that of `{BASE}`, as the geometric mean over seeds. "
        f"[{LEVELS}]({NAME}/{LEVELS}) has all measurements at each load, with intervals.\n\n"
        + table(("workload", *policies), rows)
    )


def _quality(results: Sequence[WorkloadResult]) -> list[str]:
    """Return the section on prediction quality, or nothing if no rows were judged."""
    if not any(result.quality for result in results):
        return []
    return ["## Prediction against the noise floor\n\n" + QUALITY, quality_table(results)]


def _workload(result: WorkloadResult, pictures: Path, changed_s: float | None) -> str:
    plots.draw_attainment(result, pictures / f"{result.workload}.png")
    parts = [
        f"## {result.workload}",
        result.description,
        f"![SLO attainment by request rate]({NAME}/{result.workload}.png)",
        goodput_table(result),
        f"At the common load of {result.rates[COMMON]:.3g} requests/s:",
        load_table(result),
        latency_table(result),
        "Attainment by class, %:",
        class_table(result),
    ]
    for load, rate in result.rates.items():
        if load != COMMON:
            parts.append(f"At {load:g} times the common load, {rate:.3g} requests/s:")
            parts += [load_table(result, load), latency_table(result, load)]
    if plots.has_errors(result):
        plots.draw_errors(result, changed_s, pictures / f"{result.workload}-errors.png")
        parts.append(f"![Prediction errors of {OURS} over time]({NAME}/{result.workload}-errors.png)")
    return "\n\n".join(parts)
