"""The frame of a command that runs the loop: start all processes, report errors, and leave nothing running."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from headroom.processes.exceptions import LoopError
from headroom.processes.supervisor import Supervisor
from lab.loop.stack import StackConfig, parts
from lab.loop.terminal import Terminal

# The shell's exit status after SIGINT: 128 + 2.
_INTERRUPTED = 130


async def exit_status(work: Coroutine[Any, Any, None], console: Console) -> int:
    """Run a command's work, and return its exit status. Print an error as one line. Stop cleanly at a signal."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await work
    except LoopError as error:
        console.print(f"[red]stopped:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("stopped: interrupted, nothing is left running")
        return _INTERRUPTED
    return 0


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="headroom-demo-"))


@asynccontextmanager
async def running_stack(config: StackConfig, terminal: Terminal) -> AsyncIterator[Supervisor]:
    """Start the loop's processes, and yield when all are ready. Stop them at the end.

    The folder is removed at the end, unless something fails: then its logs matter.
    """
    supervisor = Supervisor(
        config.folder, lambda name: terminal.say(f"{name} was killed; the loop continues without it")
    )
    try:
        terminal.say(f"logs, models and configuration are in {config.folder}")
        stack = parts(config)
        step = terminal.begin(f"starting {len(stack)} processes", len(stack))
        await supervisor.start(stack, lambda name: step())
        yield supervisor
    finally:
        await supervisor.stop()
    shutil.rmtree(config.folder, ignore_errors=True)
