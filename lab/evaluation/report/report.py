"""docs/evaluation.md: everything that an evaluation found, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lab.evaluation.plan import BASE, COMMON, HALVING, OURS, Described, EvaluationPlan
from lab.evaluation.report import plots
from lab.evaluation.report.levels import LEVELS, write_levels
from lab.evaluation.report.method import ASSUMPTIONS, BOUNDS, METHOD, OBJECTIVES, QUALITY, RECOVERY, TPOT_BOUNDS, TRIED
from lab.evaluation.report.results import WorkloadResult
from lab.evaluation.report.summary import Summary
from lab.evaluation.report.tables import (
    class_table,
    goodput_table,
    latency_table,
    load_table,
    quality_table,
    table,
    targets_table,
)
from lab.evaluation.studies.bounds import LatencyBound, goodput_bounds_table, recovery_table, tpot_bounds_table
from simulator.workloads.objectives import SloMultiple

NAME = "evaluation"


@dataclass(frozen=True)
class Made:
    """How the report came to be, in so much time. `stale`: some runs are of an earlier state of the code."""

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
    made: Made,
    workloads: Mapping[str, Described],
    changed_s: float | None,
    latency: LatencyBound | None,
) -> Path:
    """Writes evaluation.md into the folder, and its pictures and levels.csv into the folder `evaluation` there.

    Returns the former.
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
    file.write_text("\n\n".join(sections) + "\n")
    return file


def _head(plan: EvaluationPlan, made: Made) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    seeds = f"{len(plan.seeds)} seeds" if len(plan.seeds) > 1 else "one seed, so that nothing has an interval"
    notes = []
    if made.resumed:
        notes.append("It was interrupted, and went on with the runs that it had; the time is that of all its parts.")
    if made.stale:
        notes.append("**Some of these runs were made by an earlier state of the code.**")
    return (
        "# Evaluation: every policy side by side\n\n"
        f"Written by `{made.command}`, which took {_duration(made.wall_s)} with {plan.jobs} processes on "
        f"{made.cores} cores of {made.cpu or 'an unnamed CPU'} ({versions}). "
        f"Each run has arrivals for {plan.seconds:g} s, or until {plan.requests:,} came if that takes longer; {seeds}. "
        + " ".join(notes)
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
    tuned_ms, least_ms, quickest_ms = map(fmean, (latency.tuned_ms, latency.least_ms, latency.quickest_ms))
    return text + (
        f"\n\nOf the end-to-end p50 on shared-prefix: at the common load tuned's is {tuned_ms:,.0f} ms."
        f" Were each request alone on an idle endpoint that has its prompt in the cache, it would be"
        f" {least_ms:,.0f} ms."
        f" So no policy could be quicker by more than {latency.most.text()}. A policy that knows what the oracle knows,"
        f" and places each where all answers together are foreseen to end soonest, has {quickest_ms:,.0f} ms:"
        f" {latency.gain.text()} times as quick. Between that and the least lie the steps that requests share, and"
        f" what could be found by one who knew who will come."
    )


def _objectives(plan: EvaluationPlan, workloads: Mapping[str, Described]) -> str:
    """Workloads with the same classes share their rows."""
    by_mix: dict[tuple[SloMultiple, ...], list[str]] = {}
    for name in plan.workloads:
        by_mix.setdefault(workloads[name].mix, []).append(name)
    rows = [
        (", ".join(names), one.name, f"{one.share:.0%}", f"{one.ttft:g}", f"{one.tpot:g}")
        for mix, names in by_mix.items()
        for one in mix
    ]
    return OBJECTIVES + "\n\n" + table(("workloads", "class", "share of requests", "TTFT", "TPOT"), rows)


def _overview(results: Sequence[WorkloadResult]) -> str:
    """Goodput at 90% of each policy over the base's, by workload."""
    policies = [policy for policy in results[0].policies if policy != BASE]
    rows = [
        (f"[{r.workload}](#{r.workload})", *(f"{r.goodput_ratio(BASE, policy=policy).mean:.2f}" for policy in policies))
        for r in results
    ]
    return (
        f"Goodput at 90% over that of `{BASE}`, geometric mean over seeds. All that was measured at each load is in "
        f"[{LEVELS}]({NAME}/{LEVELS}), with intervals.\n\n" + table(("workload", *policies), rows)
    )


def _quality(results: Sequence[WorkloadResult]) -> list[str]:
    """Nothing where no rows were judged."""
    if not any(result.quality for result in results):
        return []
    return ["## Prediction against the noise floor\n\n" + QUALITY, quality_table(results)]


def _workload(result: WorkloadResult, pictures: Path, changed_s: float | None) -> str:
    plots.draw_attainment(result, pictures / f"{result.workload}.png")
    parts = [
        f"## {result.workload}",
        result.description,
        f"![Attainment against rate]({NAME}/{result.workload}.png)",
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
        parts.append(f"![Errors of {OURS} over time]({NAME}/{result.workload}-errors.png)")
    return "\n\n".join(parts)
