"""Run one judge against the gateway, and compare its report with the picker's notes."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from types import ModuleType

from headroom.processes.exceptions import PartError
from lab.judges import aiperf, guidellm, inference_perf, vllm_bench
from lab.judges.task import Command, Task
from lab.judges.verdict import Verdict, verdict
from lab.loop.pages import newest_decisions, until_idle
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
_MOST_DECISIONS = 10_000


async def judge(name: str, task: Task, config: StackConfig) -> Verdict:
    """Run the judge and return the verdict. Raise PartError if the judge fails or its report can't be read."""
    module = JUDGES[name]
    task.folder.mkdir(parents=True, exist_ok=True)
    command: Command = module.command(task)
    began = time.time()
    await _run(name, command, task)
    with suppress(TimeoutError):
        await until_idle(config, _IDLE_S)
    try:
        judged = module.read(task)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PartError(f"the report of {name} in {task.folder} can't be read: {error!r}") from error
    decisions = [one for one in await newest_decisions(config, _MOST_DECISIONS) if one["decided_at"] >= began]
    return verdict(name, judged, task, decisions)


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
            raise PartError(f"{name} hasn't ended after {limit_s:.0f} s, see {log}") from error
        finally:
            # The judge's own helpers go with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:])
        raise PartError(f"{name} has failed with status {status}, see {log}:\n{last}")
