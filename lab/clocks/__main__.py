"""Runs the same requests under the same policies in virtual time and through a real Envoy, and compares."""

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

from lab.clocks import report
from lab.clocks.comparing import PhaseComparison, compare, order
from lab.clocks.virtual import tell_virtually
from lab.evaluation.replay.replay import LEARNING, WARM_UP_SHARE
from lab.loop.load import MAX_OUTPUT_TOKENS, MAX_PROMPT_TOKENS, OfferedLoad, shorten
from lab.loop.options import hardware_option, policy_option, share_replicas, speed_option
from lab.loop.policies import ENVOYS_OWN, PICKERS, Phase, phases
from lab.loop.report import machine_and_versions
from lab.loop.running import exit_status, new_folder, running_stack
from lab.loop.stack import StackConfig, free_ports
from lab.loop.story import run_story
from lab.loop.terminal import Terminal
from simulator.workloads import WORKLOADS
from simulator.workloads.changes import steady

_FILE = click.Path(dir_okay=False, path_type=Path)
# Servers can't change their speed while they run.
_STEADY = [name for name, workload in WORKLOADS.items() if workload.changes is steady]
_LOW, _LOW_SHARE = "low load", 0.2
_POSITIVE = click.FloatRange(0, min_open=True)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--workload", default="azure-conversation", type=click.Choice(_STEADY))
@hardware_option
@click.option("--replicas", default=4, type=click.IntRange(1, 64), help="Simulated servers.")
@speed_option
@policy_option((*ENVOYS_OWN, *PICKERS))
@click.option("--load", "share", default=0.6, type=_POSITIVE, help="Multiple of the workload's typical rate.")
@click.option("--seconds", default=60.0, type=click.FloatRange(5), help="Time under load, for each policy.")
@click.option("--seed", default=1, type=click.IntRange(0), help="Seed of lengths, arrivals and objectives.")
@click.option("--max-prompt-tokens", default=MAX_PROMPT_TOKENS, type=click.IntRange(1), help="Cuts prompts.")
@click.option("--max-output-tokens", default=MAX_OUTPUT_TOKENS, type=click.IntRange(2), help="Cuts answers.")
@click.option("--chances", default=3, type=click.IntRange(1), help="Runs in virtual time, by other chances.")
@click.option("--margin", default=0.1, type=click.FloatRange(0, 1), help="Attainments further apart are an order.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures here.")
@click.option("--out", "markdown_file", type=_FILE, help="Write the page here: docs/evaluation-envoy.md is one.")
def main(**options: Any) -> None:
    """Are policies as good through a real Envoy as the evaluation says?

    It takes --seconds and about ten more for each policy, and for a warm-up and a low load before them; then some
    seconds for each in virtual time. The page of the documentation is made by `scripts/compare_clocks.py --out
    docs/evaluation-envoy.md --json docs/evaluation-envoy.json`.

    All times are those of the clock on the wall, which virtual time follows at the same speed factor.
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
        ports=free_ports(len(pool)),
        speed_factor=speed_factor,
        quantiles=LEARNING.job.fit.quantiles,
    )
    low = replace(phases(["default"], load)[0], name=_LOW, title=_LOW, share=_LOW_SHARE)
    compared = await _on_both_clocks(console, config, load, (low, *phases(policies, load)), seconds, seed, chances)
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
    _tell(console, compared, margin, settings, json_file, markdown_file)


async def _on_both_clocks(
    console: Console,
    config: StackConfig,
    load: OfferedLoad,
    told: Sequence[Phase],
    phase_s: float,
    seed: int,
    chances: int,
) -> dict[str, PhaseComparison]:
    """By phase. The machine has its cores for Envoy alone: virtual time comes after."""
    with Terminal(console) as terminal:
        async with running_stack(config, terminal) as supervisor:
            story = await supervisor.guard(run_story(config, terminal, load, told, phase_s=phase_s, seed=seed))
        terminal.say("now the same in virtual time")
        learning = msgspec.structs.replace(
            LEARNING, interval_s=config.retraining_interval_s, min_samples=config.min_samples, min_new_rows=1
        )
        step = terminal.begin("virtual time", chances * (1 + len(told)))
        # A thread, since what is learnt there runs event loops of its own.
        runs = [
            await asyncio.to_thread(
                tell_virtually,
                load,
                told,
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
        for phase in told
    }


def _tell(
    console: Console,
    compared: dict[str, PhaseComparison],
    margin: float,
    settings: dict[str, Any],
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """On the terminal as in the page."""
    policies = {name: phase for name, phase in compared.items() if name != _LOW}
    low = {_LOW: compared[_LOW]}
    found, about = order(policies, margin), machine_and_versions()
    tables = (
        report.comparison_table(policies),
        report.placement_table(policies, settings["hardware"]),
        report.prediction_table(policies),
        report.verdict(found),
        report.apart_table(compared),
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
