"""The unrest of a soak: endpoints come and go, and the picker's configuration is rewritten."""

import asyncio
import itertools

from headroom.files import replace_file
from lab.loop.stack import StackConfig, write_endpoints

# Seconds that an endpoint stays away, and that all stay in the pool.
_AWAY_S, _ALL_S = 1.0, 2.0
_RELOAD_S = 5.0


async def change_endpoints(config: StackConfig) -> None:
    """Take one endpoint after the other out of the pool and back, until cancelled."""
    for left_out in itertools.cycle(range(len(config.servers))):
        write_endpoints(config, [index for index in range(len(config.servers)) if index != left_out])
        await asyncio.sleep(_AWAY_S)
        write_endpoints(config, range(len(config.servers)))
        await asyncio.sleep(_ALL_S)


async def rewrite_configuration(config: StackConfig) -> None:
    """Rewrite the picker's configuration with another comment, until cancelled: the picker reloads it."""
    for number in itertools.count():
        replace_file(config.picker_file, f"{config.picker_config}\n# {number}\n")
        await asyncio.sleep(_RELOAD_S)
