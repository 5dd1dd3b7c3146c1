"""Read the pages of the loop's picker."""

import asyncio
from typing import Any

import aiohttp

from lab.loop.stack import StackConfig


async def get_json(url: str) -> dict[str, Any]:
    async with aiohttp.request("GET", url) as response:
        page: dict[str, Any] = await response.json()
        return page


async def until_idle(config: StackConfig, limit_s: float) -> None:
    """Return when the picker has no request in flight. Raise TimeoutError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while (await get_json(f"{config.picker_url}/debug/endpoints"))["in_flight"]:
            await asyncio.sleep(0.1)


async def newest_decisions(config: StackConfig, limit: int) -> list[dict[str, Any]]:
    page = await get_json(f"{config.picker_url}/debug/decisions?candidates=false&limit={limit}")
    decisions: list[dict[str, Any]] = page["decisions"]
    return decisions
