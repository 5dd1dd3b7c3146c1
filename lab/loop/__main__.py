"""`./scripts/demo`: run the whole loop on one machine, and compare policies under the same load."""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from headroom.processes.running import exit_status
from lab.loop import report
from lab.loop.live_figures import LiveFigures
from lab.loop.load import OfferedLoad, shorten
from lab.loop.options import hardware_option, policy_option, share_replicas, speed_option
from lab.loop.picture import draw
from lab.loop.policies import DEFAULT_POLICIES, phases
from lab.loop.running import new_folder, running_stack
from lab.loop.stack import MODEL, StackConfig
from lab.loop.story import Story, run_story
from lab.loop.terminal import Terminal
from simulator.workloads import WORKLOADS

_FILE = click.Path(dir_okay=False, path_type=Path)
WORKLOAD = "azure-conversation"
# Default load, as a share of the workload's typical rate (about half of the requests would be in trouble at that rate).
_LOAD = 0.6


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--seconds",
    default=160.0,
    type=click.FloatRange(20),
    help="Time under load, in equal phases: a warm-up, then one phase per policy.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1),
    show_default=f"{_LOAD:.0%} of the rate at which half of the requests would be in trouble",
    help="Requests per second.",
)
@click.option("--seed", default=1, type=click.IntRange(0), help="Random seed for lengths, arrivals and objectives.")
@click.option("--replicas", default=4, type=click.IntRange(1, 64), help="Number of simulated servers.")
@hardware_option
@speed_option
@policy_option(DEFAULT_POLICIES)
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file, as JSON.")
@click.option(
    "--picture",
    default="demo-out/ttft.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the picture to this file, PNG or SVG.",
)
@click.option("--keep", is_flag=True, help="Keep everything running at the end, until Ctrl-C.")
def main(**options: Any) -> None:
    """Show how predicted latencies help requests to meet their objectives.

    Starts Envoy, the endpoint picker, a simulated vLLM pool, the trainer and three predictors, and sends the same load
    under each policy.
    """
    console = Console()
    sys.exit(asyncio.run(exit_status(_demo(console, **options), console)))


async def _demo(
    console: Console,
    seconds: float,
    rate: float | None,
    seed: int,
    replicas: int,
    hardware: Sequence[str],
    speed_factor: float,
    policies: Sequence[str],
    json_file: Path | None,
    picture: Path,
    keep: bool,
) -> None:
    pool = share_replicas(hardware, replicas)
    workload = shorten(WORKLOADS[WORKLOAD].on(*pool))
    load = OfferedLoad(workload, rate or round(_LOAD * workload.typical_rps * speed_factor, 1), speed_factor)
    folder = new_folder()
    comparison = folder / "comparison.json"
    page = ("--live-page", "true", "--live-comparison-file", comparison)
    config = StackConfig(
        folder=folder, hardware=pool, speed_factor=speed_factor, quantiles=(0.9, 0.5), picker_flags=page
    )
    settings = {
        "seconds": seconds,
        "rate": load.requests_per_s,
        "seed": seed,
        "hardware": pool,
        "speed_factor": speed_factor,
        "quantile": config.quantiles[0],
    }
    with Terminal(console) as terminal:
        async with running_stack(config, terminal) as supervisor:
            phase_s = seconds / (1 + len(policies))
            terminal.say(f"watch it at {config.picker_url}/live/")
            work = run_story(
                config,
                terminal,
                load,
                phases(policies, load),
                phase_s=phase_s,
                seed=seed,
                comparison=LiveFigures(comparison, policies),
            )
            story = await supervisor.guard(work)
            document = report.build(story, settings)
            _write(story, document, picture, json_file)
            terminal.stop()
            console.print(report.table(document))
            console.print(report.lines(document), highlight=False, soft_wrap=True)
            console.print(f"picture: {picture}" + (f", figures: {json_file}" if json_file else ""), highlight=False)
            if keep:
                console.print(_hints(config), highlight=False, soft_wrap=True)
                # Ctrl-C is the normal end here.
                with suppress(asyncio.CancelledError):
                    await supervisor.guard(asyncio.sleep(1e9))


def _write(story: Story, document: dict[str, Any], picture: Path, json_file: Path | None) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(story, picture)
    if json_file:
        json_file.write_text(json.dumps(document, indent=2) + "\n")


def _hints(config: StackConfig) -> str:
    row = {"kv_cache_percentage": 0.3, "input_token_length": 1000, "num_request_waiting": 1, "num_request_running": 8}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "stream": True}
    objectives = "-H 'x-prediction-based-scheduling: true' -H 'x-slo-ttft-ms: 800' -H 'x-slo-tpot-ms: 60'"
    predictor = config.predictor_urls[0]
    commands = {
        "predict a time to first token": f"{predictor}/v1/ttft -d '{json.dumps({**row, 'prefix_cache_score': 0})}'",
        "predict a time per output token": f"{predictor}/v1/tpot -d '{json.dumps({**row, 'num_tokens_generated': 0})}'",
        "send a chat through Envoy": f"{config.gateway_url}/v1/chat/completions {objectives} -d '{json.dumps(chat)}'",
        "see why the picker chose its endpoint": f"'{config.picker_url}/debug/decisions?limit=1'",
        "see the picker's view of the pool": f"{config.picker_url}/debug/endpoints",
        "see what was trained, published and refused": f"{config.trainer_url}/data/status",
    }
    page = f"  look at pool, decisions and models in a browser:\n    {config.picker_url}/live/"
    lines = (f"  {text}:\n    curl -s {command}" for text, command in commands.items())
    store = f"  list the model store, which Triton could serve as well:\n    ls {config.store}/ttft"
    return "\n".join(("", "Everything keeps running until Ctrl-C. Try:", page, *lines, store))


if __name__ == "__main__":
    main(prog_name="./scripts/demo")
