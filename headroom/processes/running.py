"""The frame of a command that runs processes: report errors, and stop at a signal."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from rich.console import Console

from headroom.processes.exceptions import PartError

# The shell's exit status after SIGINT: 128 + 2.
_INTERRUPTED = 130


async def exit_status(work: Coroutine[Any, Any, None], console: Console) -> int:
    """Run a command's work, and return its exit status. Print an error as one line. Stop cleanly at a signal."""
    task = asyncio.current_task()
    assert task  # noqa: S101 (a coroutine runs in a task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await work
    except PartError as error:
        console.print(f"[red]stopped:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("stopped: interrupted, nothing is left running")
        return _INTERRUPTED
    return 0
