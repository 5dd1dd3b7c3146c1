"""Runs every routing policy over every workload in virtual time, and reports what each is good for."""

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
from lab.evaluation.studies.bounds import p50_bounds
from lab.evaluation.studies.rows import judge_rows
from lab.evaluation.studies.tpot_bounds import tpot_bounds
from lab.evaluation.whole import Output, Subject, run_whole
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
    "--workload", "workloads", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only this; repeatable."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(POLICIES),
    help=f"Only this; repeatable. {BASE} always runs.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    show_default=f"{_SEEDS}, or {_QUICK_SEEDS} with --quick",
    help="Repetitions with other requests: intervals are over these. Costs grow in proportion.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(10),
    show_default=f"{_SECONDS:g}, or {_QUICK_SECONDS:g} with --quick",
    help="Virtual time that requests arrive in, in each run; halving has 120 at least. Costs grow in proportion.",
)
@click.option(
    "--requests",
    type=click.IntRange(0),
    show_default=f"{_REQUESTS}, or {_QUICK_REQUESTS} with --quick",
    help="Runs at low rates are prolonged until as many come.",
)
@click.option("--jobs", default=min(2, os.cpu_count() or 1), type=click.IntRange(1), help="Processes that make runs.")
@click.option(
    "--quick",
    is_flag=True,
    help="The shape of it in minutes: fewer workloads, one seed, short runs, coarser rates, and only the common load.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the runs in --points. Without this they are kept as .previous."
)
@click.option(
    "--points",
    "points_file",
    default="evaluation-out/points.jsonl",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Every run's result is appended here; what was learnt for a workload lies beside it.",
)
@click.option(
    "--out",
    "folder",
    default="evaluation-out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write evaluation.md, with its pictures in the folder evaluation.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
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
    """Finds the goodput of every policy on every workload, and what each does at a common load.

    On two idle cores --quick takes less than four minutes, and all of it some two and a half hours: about a sixth of
    that each for slo, slo-shedding, reference, informed and both oracles, next to nothing for policies without a
    picker; a quarter of it for the workload halving.

    Runs of a search end as soon as they can attain no share that is looked for, those at common loads never.

    An interrupted evaluation goes on with --resume; so does a finished one with more seeds, policies or workloads.
    The report of the documentation is made by `scripts/evaluate.py --out docs --json docs/evaluation.json`.
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
        run_whole(plan, subject, Output(folder, points_file, json_file, resume, command))
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted: the same command with --resume goes on") from None


def _halving_s(seconds: float) -> float:
    workload = WORKLOADS[HALVING]
    return workload.changes(0, seconds, len(workload.endpoints))[0].at_s


if __name__ == "__main__":
    main()
