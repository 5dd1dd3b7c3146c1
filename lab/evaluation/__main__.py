"""Run every routing policy on every workload in virtual time, and write a report."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lab.evaluation.journal import JournalError
from lab.evaluation.plan import BASE, COMMON, HALVING, OURS, POLICIES, EvaluationPlan
from lab.evaluation.replay.preparing import LEARNING_S, prepare
from lab.evaluation.replay.replay import run_point
from lab.evaluation.run import RunFunctions
from lab.evaluation.run_and_report import Output, Subject, run_and_report
from lab.evaluation.studies.bounds import p50_bounds
from lab.evaluation.studies.rows import judge_rows
from lab.evaluation.studies.tpot_bounds import tpot_bounds
from simulator.workloads import WORKLOADS

_SECONDS, _QUICK_SECONDS = 30.0, 20.0
_REQUESTS, _QUICK_REQUESTS = 1200, 600
_SEEDS, _QUICK_SEEDS = 3, 1
_RATE_RATIO, _QUICK_RATE_RATIO = 1.06, 1.1
_QUICK_LEARNING_S = 60.0
_QUICK_WORKLOADS = ("azure-conversation", "shared-prefix", "heterogeneous")
_ROWS_OF = ("azure-conversation", "shared-prefix", "heterogeneous")
_LOADS = (0.7, COMMON, 1.4)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice(list(WORKLOADS)),
    help="Run only this workload; repeatable.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(POLICIES),
    help=f"Run only this policy; repeatable. {BASE} always runs.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    show_default=f"{_SEEDS}, or {_QUICK_SEEDS} with --quick",
    help="Number of repetitions with other requests. Intervals are over seeds. The run time grows in proportion.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(10),
    show_default=f"{_SECONDS:g}, or {_QUICK_SECONDS:g} with --quick",
    help="Virtual time of arrivals in each run, at least 120 for halving. The run time grows in proportion.",
)
@click.option(
    "--requests",
    type=click.IntRange(0),
    show_default=f"{_REQUESTS}, or {_QUICK_REQUESTS} with --quick",
    help="Smallest number of requests in a run. Runs at low rates are prolonged to reach it.",
)
@click.option(
    "--jobs",
    default=min(2, os.cpu_count() or 1),
    show_default="two, or one on a single core",
    type=click.IntRange(1),
    help="Number of processes that make runs.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Make a rough evaluation in minutes: fewer workloads, one seed, short runs, coarser rates, one load.",
)
@click.option(
    "--resume", is_flag=True, help="Continue with the runs in --points. Without this, the file is renamed to .previous."
)
@click.option(
    "--points",
    "points_file",
    default="evaluation-out/points.jsonl",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to which each run's result is appended. Prepared models are stored in a folder next to it.",
)
@click.option(
    "--out",
    "folder",
    default="evaluation-out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for evaluation.md; its pictures go into the subfolder evaluation.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
def main(
    workloads: Sequence[str],
    policies: Sequence[str],
    seeds: int | None,
    seconds: float | None,
    requests: int | None,
    jobs: int,
    quick: bool,
    resume: bool,
    points_file: Path,
    folder: Path,
    json_file: Path | None,
) -> None:
    """Find the goodput of every policy on every workload, and compare policies at common loads.

    On two idle cores, --quick takes some minutes, and a whole evaluation some three and a half hours. Of that time,
    slo, slo-shedding, reference, llmd-predicted, informed and both oracles take about a seventh each. Policies without
    a picker take almost none. The workload halving takes a fifth.

    In a search, a run ends as soon as it can attain none of the wanted shares. Runs at common loads never end early.

    --resume continues an interrupted evaluation. It also adds seeds, policies or workloads to a finished one.
    `scripts/evaluate.py --points docs/evaluation/points.jsonl --resume --out docs --json docs/evaluation.json` writes
    the report of the documentation.
    """
    wanted = workloads or (_QUICK_WORKLOADS if quick else WORKLOADS)
    chosen = tuple(name for name in POLICIES if name == BASE or name in (policies or POLICIES))
    rows_of = _ROWS_OF[:1] if quick else _ROWS_OF
    plan = EvaluationPlan(
        workloads=tuple(name for name in WORKLOADS if name in wanted),
        policies=chosen,
        seeds=tuple(range(1, 1 + (seeds or (_QUICK_SEEDS if quick else _SEEDS)))),
        seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
        requests=requests if requests is not None else (_QUICK_REQUESTS if quick else _REQUESTS),
        jobs=jobs,
        rate_ratio=_QUICK_RATE_RATIO if quick else _RATE_RATIO,
        loads=(COMMON,) if quick else _LOADS,
        learning_s=_QUICK_LEARNING_S if quick else LEARNING_S,
        judged_rows=rows_of if OURS in chosen else (),
        has_bounds=not quick and OURS in chosen,
    )
    subject = Subject(WORKLOADS, RunFunctions(prepare, run_point, judge_rows, tpot_bounds), _halving_s, p50_bounds)
    command = shlex.join(["scripts/evaluate.py", *sys.argv[1:]])
    try:
        run_and_report(plan, subject, Output(folder, points_file, json_file, resume, command))
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted: continue with the same command and --resume") from None


def _halving_s(seconds: float) -> float:
    workload = WORKLOADS[HALVING]
    return workload.changes(0, seconds, len(workload.endpoints))[0].at_s


if __name__ == "__main__":
    main()
