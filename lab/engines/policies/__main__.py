"""`scripts/evaluate_engines.py`: compare policies in front of real vLLM servers of different speed."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markdown import Markdown

from headroom.processes.running import exit_status
from lab.engines.policies import report
from lab.engines.policies.journal import RunJournal, Settings
from lab.engines.policies.plan import OBJECTIVES, POLICIES, RunPlan
from lab.engines.policies.running import run_policy, warm_up
from lab.engines.policies.speeds import measure, with_objectives
from lab.engines.vllm import KINDS, MODEL, vllm
from lab.evaluation.report.report import AFTER_REAL_ENGINES, REAL_ENGINES
from lab.loop.load import OfferedLoad, shorten
from lab.loop.policies import ENVOY_POLICIES, PICKER_POLICIES
from lab.loop.running import new_folder, running_stack
from lab.loop.stack import StackConfig, unused_ports
from lab.loop.terminal import Terminal
from lab.markdown import with_section
from simulator.workload import PlannedRequest
from simulator.workloads import WORKLOADS
from simulator.workloads.texts import sendable

_FILE = click.Path(dir_okay=False, path_type=Path)
_POSITIVE = click.FloatRange(0, min_open=True)
# Requests for the measurement of the capacity.
_SAMPLE = 48
# Requests before the first run: enough for models of both latencies.
_WARM_UP = 240


def _requests(settings: Settings, seed: int, count: int, rate_rps: float, salt: str) -> list[PlannedRequest]:
    """Return `count` requests, with lengths that small servers can take.

    Equal seeds give equal lengths and arrivals; texts differ by the salt.
    """
    workload = shorten(WORKLOADS[settings.workload], settings.max_prompt_tokens, settings.max_output_tokens)
    # Bursts may leave fewer requests in a span than the rate says.
    scenario = OfferedLoad(workload, rate_rps, 1.0).scenario(seed, 3 * count / rate_rps)
    return sendable(scenario, salt)[:count]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--kind", "kinds", multiple=True, default=("tiny", "small"), type=click.Choice(list(KINDS)), help="Server to start."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=POLICIES,
    type=click.Choice((*ENVOY_POLICIES, *PICKER_POLICIES)),
    help="Policy to compare; repeatable.",
)
@click.option(
    "--objectives",
    multiple=True,
    default=tuple(OBJECTIVES),
    type=click.Choice(tuple(OBJECTIVES)),
    help="Objectives that every server can meet, or that the slow ones never do.",
)
@click.option("--workload", default="azure-conversation", type=click.Choice(list(WORKLOADS)), help="Workload to send.")
@click.option("--requests", default=150, type=click.IntRange(10), help="Requests in each run.")
@click.option("--rounds", default=5, type=click.IntRange(1), help="Runs of each policy, each with other requests.")
@click.option("--load", default=0.6, type=_POSITIVE, help="Request rate, as a share of the servers' capacity.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Random seed for requests and the order of runs.")
@click.option("--max-prompt-tokens", default=400, type=click.IntRange(1), help="Longer prompts are cut.")
@click.option("--max-output-tokens", default=60, type=click.IntRange(2), help="Longer answers are cut.")
@click.option(
    "--journal",
    default=Path("evaluation-engines.jsonl"),
    type=_FILE,
    help="File that keeps each run. With the same settings, the comparison goes on where the file ends.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file, as JSON.")
@click.option("--out", "page", type=_FILE, help="Put the tables into this page, as its section 'On real engines'.")
def main(**options: Any) -> None:
    """Compare policies in front of real vLLM servers, through Envoy and the whole loop.

    Starts the servers on cores of their own, measures what they can do, and sends each policy the same requests, in
    shuffled order. Each run takes about a minute. The machine must be quiet.
    """
    console = Console()
    sys.exit(asyncio.run(exit_status(_compare(console, **options), console)))


async def _compare(
    console: Console,
    policies: Sequence[str],
    objectives: Sequence[str],
    rounds: int,
    journal: Path,
    json_file: Path | None,
    page: Path | None,
    **settings: Any,
) -> None:
    chosen = Settings(**settings)
    kept = RunJournal(journal, chosen)
    plan = RunPlan(policies, objectives, rounds, chosen.seed)
    with Terminal(console) as terminal:
        left = [run for run in plan.runs() if run not in kept.results]
        if left:
            await _run(terminal, chosen, kept, plan)
    console.print(Markdown(report.section(kept, chosen)))
    if json_file:
        _write(json_file, report.document(kept, chosen))
    if page:
        _put(page, report.page_section(kept, chosen))


def _put(page: Path, text: str) -> None:
    before = page.read_text() if page.exists() else ""
    page.write_text(with_section(before, REAL_ENGINES, text, before=AFTER_REAL_ENGINES))


def _write(file: Path, document: dict[str, Any]) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


async def _run(terminal: Terminal, settings: Settings, journal: RunJournal, plan: RunPlan) -> None:
    ports = unused_ports(len(settings.kinds))
    engines = [
        vllm(kind, ports.first_server + index, core=index, flags=["--scheduling-policy", "fcfs"])
        for index, kind in enumerate(settings.kinds)
    ]
    config = StackConfig(folder=new_folder(), engines=engines, ports=ports, message_timeout_s=5.0)
    async with running_stack(config, terminal) as supervisor:
        if not journal.speeds:
            sample = _requests(settings, settings.seed + 1_000, _SAMPLE, 1.0, "capacity")
            servers = zip(config.server_names, config.servers, strict=True)
            speeds = [await measure(name, f"http://{place}", MODEL, sample) for name, place in servers]
            journal.begin(settings, speeds)
        rate = settings.load * sum(speed.capacity_rps for speed in journal.speeds)
        terminal.say(f"{rate:.2f} requests/s, {settings.load:g} of the capacity")
        await supervisor.guard(_all(terminal, settings, journal, plan, config, rate))


async def _all(
    terminal: Terminal, settings: Settings, journal: RunJournal, plan: RunPlan, config: StackConfig, rate: float
) -> None:
    warming = _requests(settings, settings.seed + 2_000, _WARM_UP, rate, "warm-up")
    await warm_up(config, MODEL, with_objectives(warming, journal.speeds, OBJECTIVES["met"]))
    runs = list(plan.runs())
    step = terminal.begin("runs", len(runs))
    for run in runs:
        if run not in journal.results:
            salt = f"{run.round} {run.objectives} {run.policy}"
            requests = _requests(settings, settings.seed + run.round, settings.requests, rate, salt)
            wanted = with_objectives(requests, journal.speeds, OBJECTIVES[run.objectives])
            journal.add(await run_policy(config, MODEL, run, wanted, journal.speeds))
        step()


if __name__ == "__main__":
    main(prog_name="scripts/evaluate_engines.py")
