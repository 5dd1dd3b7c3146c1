"""The frame of a command that runs the loop: start all processes, and leave nothing running."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headroom.processes.supervisor import Supervisor
from lab.loop.stack import StackConfig, parts
from lab.loop.terminal import Terminal


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
