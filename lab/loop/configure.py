"""Change the configuration of the loop's picker while it runs."""

import asyncio
import re
from contextlib import suppress

import aiohttp

from headroom.files import replace_file
from headroom.processes.exceptions import PartError
from lab.loop.stack import StackConfig

# Seconds to wait until the picker applies a configuration. It reads its file once a second.
_APPLIED_S = 20.0
_APPLIED = re.compile(r"^headroom_epp_config_reloads_total (\S+)", re.MULTILINE)
_REFUSED = re.compile(r"^headroom_epp_config_reload_failures_total (\S+)", re.MULTILINE)


async def configure(config: StackConfig, text: str) -> None:
    """Write a configuration to the file that the picker watches, and wait until the picker applies it."""
    if config.picker_file.read_text() == text:
        return
    applied, refused = await _reloads(config)
    replace_file(config.picker_file, text)
    with suppress(TimeoutError):
        async with asyncio.timeout(_APPLIED_S):
            while await _reloads(config) == (applied, refused):
                await asyncio.sleep(0.05)
    if await _reloads(config) != (applied + 1, refused):
        raise PartError(f"the picker didn't apply {config.picker_file}, see {config.folder / 'epp.log'}")


async def _reloads(config: StackConfig) -> tuple[float, float]:
    """Return how many configurations the picker has applied and refused since its start."""
    async with aiohttp.request("GET", f"{config.picker_url}/metrics") as response:
        page = await response.text()
    counts = [float(found[1]) if (found := counter.search(page)) else 0.0 for counter in (_APPLIED, _REFUSED)]
    return counts[0], counts[1]
