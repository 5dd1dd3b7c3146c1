"""Run the same requests under the same policies in virtual time and through a real Envoy, and compare the results."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markdown import Markdown

from headroom.processes.running import exit_status
from lab.clocks import report
from lab.clocks.comparing import PhaseComparison, compare, order
from lab.clocks.virtual import run_story_virtually
from lab.evaluation.replay.replay import LEARNING, WARM_UP_SHARE
from lab.loop.load import MAX_OUTPUT_TOKENS, MAX_PROMPT_TOKENS, OfferedLoad, shorten
from lab.loop.options import hardware_option, policy_option, share_replicas, speed_option
from lab.loop.policies import ENVOY_POLICIES, PICKER_POLICIES, Phase, phases
from lab.loop.report import machine_and_versions
from lab.loop.running import new_folder, running_stack
from lab.loop.stack import StackConfig, unused_ports
from lab.loop.story import run_story
from lab.loop.terminal import Terminal
from simulator.workloads import WORKLOADS
from simulator.workloads.changes import steady

_FILE = click.Path(dir_okay=False, path_type=Path)
# Simulated servers can't change their speed while they run, so only workloads without changes can be compared.
_STEADY_WORKLOADS = [name for name, workload in WORKLOADS.items() if workload.changes is steady]
_LOW, _LOW_SHARE = "low load", 0.2
_POSITIVE = click.FloatRange(0, min_open=True)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--workload", default="azure-conversation", type=click.Choice(_STEADY_WORKLOADS), help="Workload to send."
)
@hardware_option
@click.option("--replicas", default=4, type=click.IntRange(1, 64), help="Number of simulated servers.")
@speed_option
@policy_option((*ENVOY_POLICIES, *PICKER_POLICIES))
@click.option("--load", "share", default=0.6, type=_POSITIVE, help="Load as a multiple of the workload's typical rate.")
@click.option("--seconds", default=60.0, type=click.FloatRange(5), help="Time under load, for each policy.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Random seed for lengths, arrivals and objectives.")
@click.option("--max-prompt-tokens", default=MAX_PROMPT_TOKENS, type=click.IntRange(1), help="Longer prompts are cut.")
@click.option("--max-output-tokens", default=MAX_OUTPUT_TOKENS, type=click.IntRange(2), help="Longer answers are cut.")
@click.option(
    "--chances", default=3, type=click.IntRange(1), help="Runs in virtual time, each with another seed for policies."
)
@click.option(
    "--margin",
    default=0.1,
    type=click.FloatRange(0, 1),
    help="Two policies have an order if their SLO attainments differ by more than this.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file, as JSON.")
@click.option("--out", "markdown_file", type=_FILE, help="Write the page to this file, as Markdown.")
def main(**options: Any) -> None:
    """Check that policies are as good through a real Envoy as in the evaluation's virtual time.

    Each policy takes --seconds plus about ten. A warm-up and a phase at low load before them take as long. Then each
    policy takes some seconds in virtual time. `scripts/compare_clocks.py --out docs/evaluation-envoy.md --json
    docs/evaluation-envoy.json` writes the page of the documentation.

    All times are in wall-clock time. Virtual time runs at the same speed factor.
    """
    console = Console()
    sys.exit(asyncio.run(exit_status(_compare(console, **options), console)))


async def _compare(
    console: Console,
    workload: str,
    hardware: Sequence[str],
    replicas: int,
    speed_factor: float,
    policies: Sequence[str],
    share: float,
    seconds: float,
    seed: int,
    max_prompt_tokens: int,
    max_output_tokens: int,
    chances: int,
    margin: float,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    pool = share_replicas(hardware, replicas)
    subject = shorten(WORKLOADS[workload].on(*pool), max_prompt_tokens, max_output_tokens)
    load = OfferedLoad(subject, share * subject.typical_rps * speed_factor, speed_factor)
    config = StackConfig(
        folder=new_folder(),
        hardware=pool,
        ports=unused_ports(len(pool)),
        speed_factor=speed_factor,
        quantiles=LEARNING.job.fit.quantiles,
    )
    low = replace(phases(["default"], load)[0], name=_LOW, title=_LOW, share=_LOW_SHARE)
    compared = await _run_both(console, config, load, (low, *phases(policies, load)), seconds, seed, chances)
    settings = {
        "command": shlex.join(["scripts/compare_clocks.py", *sys.argv[1:]]),
        "workload": workload,
        "hardware": list(pool),
        "speed_factor": speed_factor,
        "requests_per_s": load.requests_per_s,
        "phase_s": seconds,
        "seed": seed,
        "max_prompt_tokens": max_prompt_tokens,
        "max_output_tokens": max_output_tokens,
        "chances": chances,
        "warm_up_share": WARM_UP_SHARE,
        "low_share": _LOW_SHARE,
        "quantiles": config.quantiles,
    }
    _report(console, compared, margin, settings, json_file, markdown_file)


async def _run_both(
    console: Console,
    config: StackConfig,
    load: OfferedLoad,
    policies: Sequence[Phase],
    phase_s: float,
    seed: int,
    chances: int,
) -> dict[str, PhaseComparison]:
    """Run the phases through Envoy, then in virtual time, so that the two don't compete for cores.

    Return the comparison of each phase, by name.
    """
    with Terminal(console) as terminal:
        async with running_stack(config, terminal) as supervisor:
            story = await supervisor.guard(run_story(config, terminal, load, policies, phase_s=phase_s, seed=seed))
        terminal.say("running the same phases in virtual time")
        learning = msgspec.structs.replace(
            LEARNING, interval_s=config.retraining_interval_s, min_samples=config.min_samples, min_new_rows=1
        )
        step = terminal.begin("virtual time", chances * (1 + len(policies)))
        # In a thread, because learning in virtual time runs its own event loops.
        runs = [
            await asyncio.to_thread(
                run_story_virtually,
                load,
                policies,
                phase_s=phase_s,
                seed=seed,
                learning=learning,
                on_phase=step,
                chance=chance,
            )
            for chance in range(chances)
        ]
    outcomes = {result.phase.name: result.outcomes for result in story.phases}
    decisions = {decision["request_id"]: decision for decision in story.decisions}
    return {
        phase.name: compare(
            load.at(phase.share).scenario(seed + 1, phase_s),
            [run[phase.name] for run in runs],
            outcomes[phase.name],
            decisions,
            WARM_UP_SHARE,
        )
        for phase in policies
    }


def _report(
    console: Console,
    compared: dict[str, PhaseComparison],
    margin: float,
    settings: dict[str, Any],
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Print the tables on the terminal, and write the files."""
    policies = {name: phase for name, phase in compared.items() if name != _LOW}
    low = {_LOW: compared[_LOW]}
    found, about = order(policies, margin), machine_and_versions()
    tables = (
        report.comparison_table(policies),
        report.placement_table(policies, settings["hardware"]),
        report.prediction_table(policies),
        report.verdict(found),
        report.token_delay_table(compared),
    )
    for text in tables:
        console.print(Markdown(text))
    if markdown_file:
        markdown_file.write_text(report.page(policies, low, found, settings, about))
    if json_file:
        document = {"policies": policies, "low_load": compared[_LOW], "order": found, "settings": settings, **about}
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


if __name__ == "__main__":
    main()
