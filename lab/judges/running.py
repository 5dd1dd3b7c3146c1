"""Run one judge against the gateway, and compare its report with the picker's notes."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import aiohttp

from lab.judges import aiperf, guidellm, inference_perf, vllm_bench
from lab.judges.task import Command, Task
from lab.judges.verdict import Verdict, verdict
from lab.loop.exceptions import LoopError
from lab.loop.stack import StackConfig

# A judge's module has `program()`, which installs it if necessary, `command(task)` and `read(task)`.
JUDGES: dict[str, ModuleType] = {
    "vllm-bench": vllm_bench,
    "inference-perf": inference_perf,
    "aiperf": aiperf,
    "guidellm": guidellm,
}
# A judge may take a minute to start beside other work.
_SPARE_S = 300.0
_IDLE_S = 60.0
_LAST_LINES = 8


async def judge(name: str, task: Task, config: StackConfig) -> Verdict:
    """Run the judge and return the verdict. Raise LoopError if the judge fails or its report can't be read."""
    module = JUDGES[name]
    task.folder.mkdir(parents=True, exist_ok=True)
    command: Command = module.command(task)
    began = time.time()
    await _run(name, command, task)
    await _until_idle(config)
    try:
        judged = module.read(task)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise LoopError(f"the report of {name} in {task.folder} can't be read: {error!r}") from error
    return verdict(name, judged, task, await _decisions(config, began))


async def _run(name: str, command: Command, task: Task) -> None:
    log = task.folder / f"{name}.log"
    env = {**os.environ, **command.env}
    # Judges run from environments of their own.
    env.pop("PYTHONPATH", None)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command.line),
            env=env,
            cwd=task.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        limit_s = task.requests / task.rate_rps + _SPARE_S
        try:
            async with asyncio.timeout(limit_s):
                status = await process.wait()
        except TimeoutError as error:
            raise LoopError(f"{name} hasn't ended after {limit_s:.0f} s, see {log}") from error
        finally:
            # The judge's own helpers go with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise LoopError(f"{name} has failed with status {status}, see {log}:\n{last}")


async def _until_idle(config: StackConfig) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_IDLE_S):
            while (await _get(f"{config.picker_url}/debug/endpoints"))["in_flight"]:
                await asyncio.sleep(0.1)


async def _decisions(config: StackConfig, began: float) -> Sequence[dict[str, Any]]:
    page = await _get(f"{config.picker_url}/debug/decisions?candidates=false&limit=10000")
    return [one for one in page["decisions"] if one["decided_at"] >= began]


async def _get(url: str) -> dict[str, Any]:
    async with aiohttp.request("GET", url) as response:
        page: dict[str, Any] = await response.json()
        return page
