"""Watch what the picker holds: memory, descriptors, threads, and requests in flight."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

_LOOK_S: Final = 1.0
# The picker ends its last requests after this time at the latest.
_IDLE_S: Final = 20.0


@dataclass
class Levels:
    """The picker's resources over time, over all of its processes. `at_s` has the seconds since the first look."""

    at_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)


async def watch(pid: int, levels: Levels) -> None:
    """Read the resources of a process and of its children until cancelled."""
    picker, clock = psutil.Process(pid), asyncio.get_running_loop().time
    began_s = clock()
    while True:
        processes = [picker, *picker.children(recursive=True)]
        levels.at_s.append(clock() - began_s)
        levels.rss_mib.append(sum(one.memory_info().rss for one in processes) / 2**20)
        levels.descriptors.append(sum(one.num_fds() for one in processes))
        levels.threads.append(sum(one.num_threads() for one in processes))
        await asyncio.sleep(_LOOK_S)


async def in_flight_at_end(picker_url: str) -> float:
    """Return the requests that the picker counts as in flight, once it has had time to end them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _IDLE_S
    while True:
        async with aiohttp.request("GET", f"{picker_url}/metrics") as response:
            page = await response.text()
        families = text_string_to_metric_families(page)
        left = sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "headroom_epp_in_flight_requests"
        )
        if not left or loop.time() > deadline:
            return left
        await asyncio.sleep(_LOOK_S)
