"""`./scripts/demo`: the whole loop on one machine, told as a story."""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scripts.loop import report
from scripts.loop.exceptions import LoopError
from scripts.loop.picture import draw
from scripts.loop.stack import MODEL, StackConfig, parts
from scripts.loop.story import Story, tell
from scripts.loop.supervisor import Supervisor

_FILE = click.Path(dir_okay=False, path_type=Path)
_INTERRUPTED = 130


class Terminal:
    """Tells the story by progress bars, with what happens above them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stop(self) -> None:
        self._progress.stop()

    def begin(self, title: str, total: int) -> Callable[[], None]:
        task = self._progress.add_task(title, total=total)
        return lambda: self._progress.advance(task)

    def say(self, text: str) -> None:
        self._progress.console.print(f"[bold]•[/] {text}", highlight=False)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "--seconds",
    default=160.0,
    type=click.FloatRange(20),
    help="Time under load, in four phases.",
)
@click.option("--rate", default=5.0, type=click.FloatRange(0.1), help="Requests a second.")
@click.option("--seed", default=1, help="Seed of texts and objectives.")
@click.option("--replicas", default=4, type=click.IntRange(1, 64), help="Simulated servers, half of them slow.")
@click.option("--fast", type=click.IntRange(0, 64), default=None, help="Fast servers, instead of --replicas.")
@click.option("--slow", type=click.IntRange(0, 64), default=None, help="Slow servers, instead of --replicas.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures here.")
@click.option(
    "--picture", default="demo-out/ttft.png", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG."
)
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
def main(**options: Any) -> None:
    """Starts Envoy, the endpoint picker, a simulated vLLM pool, the trainer and three predictors, and shows what
    predicted latencies do for the requests' objectives."""
    sys.exit(asyncio.run(_main(**options)))


async def _main(**options: Any) -> int:
    console = Console()
    work = asyncio.current_task()
    assert work
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await _demo(console, **options)
    except LoopError as error:
        console.print(f"[red]stopped:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("stopped: interrupted, nothing is left running")
        return _INTERRUPTED
    return 0


async def _demo(
    console: Console,
    seconds: float,
    rate: float,
    seed: int,
    replicas: int,
    fast: int | None,
    slow: int | None,
    json_file: Path | None,
    picture: Path,
    keep: bool,
) -> None:
    hardware = _hardware(replicas, fast, slow)
    folder = Path(tempfile.mkdtemp(prefix="headroom-demo-"))
    config = StackConfig(folder=folder, hardware=hardware)
    settings = {"seconds": seconds, "rate": rate, "seed": seed, "hardware": hardware, "quantile": config.quantile}
    with Terminal(console) as terminal:
        supervisor = Supervisor(folder, lambda name: terminal.say(f"{name} was killed; the loop goes on without it"))
        try:
            terminal.say(f"logs, models and configuration are in {folder}")
            stack = parts(config)
            step = terminal.begin(f"starting {len(stack)} processes", len(stack))
            await supervisor.start(stack, lambda name: step())
            story = await supervisor.guard(tell(config, terminal, seconds=seconds, rate=rate, seed=seed))
            document = report.build(story, settings)
            _write(story, document, picture, json_file)
            terminal.stop()
            console.print(report.table(document))
            console.print(report.lines(document), highlight=False, soft_wrap=True)
            console.print(f"picture: {picture}" + (f", figures: {json_file}" if json_file else ""), highlight=False)
            if keep:
                console.print(_where_to_look(config), highlight=False, soft_wrap=True)
                # Ctrl-C is how this is meant to end.
                with suppress(asyncio.CancelledError):
                    await supervisor.guard(asyncio.sleep(1e9))
        finally:
            await supervisor.stop()
    # Only who failed is asked for its logs.
    shutil.rmtree(folder, ignore_errors=True)


def _write(story: Story, document: dict[str, Any], picture: Path, json_file: Path | None) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(story, picture)
    if json_file:
        json_file.write_text(json.dumps(document, indent=2) + "\n")


def _hardware(replicas: int, fast: int | None, slow: int | None) -> list[str]:
    if fast is None and slow is None:
        fast, slow = (replicas + 1) // 2, replicas // 2
    kinds = ["fast"] * (fast or 0) + ["slow"] * (slow or 0)
    if not kinds:
        raise LoopError("--fast 0 --slow 0 leaves no server")
    return kinds


def _where_to_look(config: StackConfig) -> str:
    row = {"kv_cache_percentage": 0.3, "input_token_length": 1000, "num_request_waiting": 1, "num_request_running": 8}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "stream": True}
    objectives = "-H 'x-prediction-based-scheduling: true' -H 'x-slo-ttft-ms: 800' -H 'x-slo-tpot-ms: 60'"
    predictor = config.predictor_urls[0]
    commands = {
        "the predicted time to first token": f"{predictor}/v1/ttft -d '{json.dumps({**row, 'prefix_cache_score': 0})}'",
        "and per output token": f"{predictor}/v1/tpot -d '{json.dumps({**row, 'num_tokens_generated': 0})}'",
        "a request through Envoy": f"{config.gateway_url}/v1/chat/completions {objectives} -d '{json.dumps(chat)}'",
        "why it went where it went": f"'{config.picker_url}/debug/decisions?limit=1'",
        "what the picker knows of the pool": f"{config.picker_url}/debug/endpoints",
        "what was trained, published and refused": f"{config.trainer_url}/data/status",
    }
    told = (f"  {text}:\n    curl -s {command}" for text, command in commands.items())
    store = f"  the model store, which Triton could serve as well:\n    ls {config.store}/ttft"
    return "\n".join(("", "Everything is still running, until Ctrl-C. Try:", *told, store))


if __name__ == "__main__":
    main(prog_name="./scripts/demo")
