"""`scripts/engines`: start real vLLM servers on this machine's processors, for trials and measurements."""

import asyncio
import os
import sys
from collections.abc import Sequence

import click
from rich.console import Console

from headroom.processes.exceptions import PartError
from headroom.processes.running import exit_status
from headroom.processes.supervisor import Supervisor
from lab.engines.vllm import KINDS, MODEL, vllm
from lab.loop.running import new_folder


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
@click.option(
    "--port", default=8100, type=click.IntRange(1, 65000), help="Port of the first server; the others follow."
)
@click.option("--pin/--no-pin", default=True, help="Pin each server to a core of its own, in turn.")
def main(kinds: Sequence[str], port: int, pin: bool) -> None:
    """Start real vLLM servers with small models of random weights, and keep them until Ctrl-C.

    KINDS are tiny, small (several times as slow), reasoning (thoughts and tool calls), adapters (LoRA) and embeddings.
    The default is tiny and small. The first call installs vLLM into the user's cache folder: 7 GB.
    """
    console = Console(stderr=True)
    sys.exit(asyncio.run(exit_status(_run(kinds or ("tiny", "small"), port, pin, console), console)))


async def _run(kinds: Sequence[str], port: int, pin: bool, console: Console) -> None:
    cores = sorted(os.sched_getaffinity(0))
    supervisor = Supervisor(new_folder(), lambda name: None)
    parts = [
        vllm(kind, port + index, core=cores[index % len(cores)] if pin else None) for index, kind in enumerate(kinds)
    ]
    try:
        console.print(f"starting {len(parts)} servers (a minute or more); logs: {supervisor.folder}", highlight=False)
        await supervisor.start(parts, lambda name: console.print(f"{name} is ready", highlight=False))
        for part in parts:
            console.print(f"{part.name}: http://127.0.0.1:{part.ports[0]}, model {MODEL}", highlight=False)
        await supervisor.guard(asyncio.Event().wait())
        raise PartError("the servers have ended")
    finally:
        await supervisor.stop()


if __name__ == "__main__":
    main(prog_name="scripts/engines")
