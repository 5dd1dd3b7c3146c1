"""`scripts/judges.py`: let other projects' load generators judge the loop, and compare their goodput with ours."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markdown import Markdown

from headroom.processes.exceptions import PartError
from headroom.processes.running import exit_status
from lab.bench.figures import write
from lab.engines.environment import build
from lab.engines.policies.running import warm_up
from lab.engines.vllm import MODEL as REAL_MODEL
from lab.engines.vllm import vllm
from lab.judges.running import JUDGES, judge
from lab.judges.task import Task
from lab.judges.tokenizer import write_tokenizer
from lab.judges.verdict import Verdict, figures
from lab.loop.load import OfferedLoad, shorten
from lab.loop.options import HARDWARE, SPEED_FACTOR
from lab.loop.running import new_folder, running_stack
from lab.loop.stack import MODEL, ROOT, StackConfig, unused_ports
from lab.loop.terminal import Terminal
from lab.markdown import table
from simulator.workload import PlannedRequest
from simulator.workloads import WORKLOADS
from simulator.workloads.texts import sendable

_KINDS = ("tiny", "small")
_TRACE = ROOT / "simulator" / "traces" / "mooncake-fast25-conversation.jsonl.gz"
# The first models need 60 samples.
_WARM_UP_REQUESTS = 90


@dataclass(frozen=True, slots=True)
class JudgesLoad:
    """The load's defaults for one kind of servers: some requests meet their objectives, and some don't."""

    model: str
    rate_rps: float
    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float


_LOADS = {
    "simulated": JudgesLoad(MODEL, 4.0, 500, 50, 250.0, 40.0),
    "real": JudgesLoad(REAL_MODEL, 1.5, 200, 30, 500.0, 60.0),
}


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--judge",
    "names",
    multiple=True,
    default=tuple(JUDGES),
    type=click.Choice(tuple(JUDGES)),
    help="Judge; repeatable.",
)
@click.option(
    "--engines",
    default="simulated",
    type=click.Choice(tuple(_LOADS)),
    help="Simulated servers, or real vLLM servers with models of random weights.",
)
@click.option("--requests", default=80, type=click.IntRange(8), help="Requests from each judge.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests/s. [default: 4 simulated, 1.5 real]")
@click.option("--slo-ttft-ms", type=click.FloatRange(1), help="TTFT objective. [default: 250 simulated, 500 real]")
@click.option("--slo-tpot-ms", type=click.FloatRange(1), help="TPOT objective. [default: 40 simulated, 60 real]")
@click.option(
    "--trace",
    default=_TRACE,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace in Mooncake's format, for aiperf.",
)
@click.option("--seed", default=1, type=click.IntRange(0), help="Random seed for the judges.")
@click.option(
    "--output",
    default=Path("judges-out"),
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    help="Folder that keeps the judges' own reports and logs.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON.")
def main(**options: Any) -> None:
    """Run other projects' load generators through Envoy and the picker, and compare their goodput with ours.

    Each judge is installed once, into an environment of its own in the user's cache folder. A judge takes a minute or
    two. It passes if it calls the same number of requests good as we do, at the same rate, and the picker got each
    request's objectives. The exit status is 0 if all pass.
    """
    console = Console()
    sys.exit(asyncio.run(exit_status(_judge_all(console, **options), console)))


async def _judge_all(
    console: Console,
    names: Sequence[str],
    engines: str,
    rate: float | None,
    slo_ttft_ms: float | None,
    slo_tpot_ms: float | None,
    json_file: Path | None,
    **settings: Any,
) -> None:
    load = _LOADS[engines]
    load = replace(
        load,
        rate_rps=rate or load.rate_rps,
        ttft_ms=slo_ttft_ms or load.ttft_ms,
        tpot_ms=slo_tpot_ms or load.tpot_ms,
    )
    with Terminal(console) as terminal:
        verdicts = await _run(terminal, names, engines, load, **settings)
    console.print(Markdown(_table(verdicts)))
    if json_file:
        told = {"engines": engines, "judges": list(names), "requests": settings["requests"], "seed": settings["seed"]}
        told |= {"rate": load.rate_rps, "slo_ttft_ms": load.ttft_ms, "slo_tpot_ms": load.tpot_ms}
        write(json_file, figures(verdicts), ("numpy", "aiohttp"), told)
    if faults := [f"{one.judge}: {fault}" for one in verdicts for fault in one.faults]:
        raise PartError("\n".join(faults))


async def _run(
    terminal: Terminal,
    names: Sequence[str],
    engines: str,
    load: JudgesLoad,
    requests: int,
    output: Path,
    **settings: Any,
) -> list[Verdict]:
    for name in names:
        # Installed before any server runs: that takes the whole machine.
        JUDGES[name].program()
    config = _stack(engines)
    task = Task(
        url=config.gateway_url,
        model=load.model,
        tokenizer=_tokenizer(engines, output),
        folder=output / engines,
        requests=requests,
        rate_rps=load.rate_rps,
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
        ttft_ms=load.ttft_ms,
        tpot_ms=load.tpot_ms,
        **settings,
    )
    verdicts = []
    async with running_stack(config, terminal) as supervisor:
        terminal.say("sending load until the first models are served")
        await supervisor.guard(warm_up(config, load.model, _warming(load)))
        step = terminal.begin("judges", len(names))
        for name in names:
            terminal.say(f"{name} sends {requests} requests; its report and log: {task.folder / name}")
            verdicts.append(await supervisor.guard(judge(name, replace(task, folder=task.folder / name), config)))
            step()
    return verdicts


def _stack(engines: str) -> StackConfig:
    ports = unused_ports(len(_KINDS))
    if engines == "simulated":
        return StackConfig(folder=new_folder(), hardware=HARDWARE, ports=ports, speed_factor=SPEED_FACTOR)
    servers = [vllm(kind, ports.first_server + index) for index, kind in enumerate(_KINDS)]
    return StackConfig(folder=new_folder(), engines=servers, ports=ports, message_timeout_s=5.0)


def _tokenizer(engines: str, output: Path) -> Path:
    return write_tokenizer(output / "tokenizer") if engines == "simulated" else build()[1] / _KINDS[0]


def _warming(load: JudgesLoad) -> list[PlannedRequest]:
    workload = shorten(WORKLOADS["azure-conversation"], 2 * load.prompt_tokens, 2 * load.output_tokens)
    seconds = 3 * _WARM_UP_REQUESTS / load.rate_rps
    return sendable(OfferedLoad(workload, load.rate_rps, 1.0).scenario(1, seconds), "judges")[:_WARM_UP_REQUESTS]


def _table(verdicts: Sequence[Verdict]) -> str:
    head = (
        "judge",
        "requests",
        "good: judge",
        "good: ours",
        "good: picker",
        "requests/s: judge",
        "requests/s: ours",
        "",
    )
    rows = [
        (
            one.judge,
            str(one.requests),
            str(one.good),
            str(one.our_good),
            str(one.picker_good),
            f"{one.goodput_rps:.4f}",
            f"{one.our_goodput_rps:.4f}",
            "differs" if one.faults else "equal",
        )
        for one in verdicts
    ]
    return table(head, rows)


if __name__ == "__main__":
    main(prog_name="scripts/judges.py")
