"""What the first worker tells the others: the endpoints with their slots, their adapters, and declared priorities."""

import asyncio
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import msgspec

from epp.exceptions import ConfigError
from epp.pool.pool import Pool
from epp.pool.sources import file_stamp
from epp.scheduling.snapshot import Adapters, Endpoint

_EVERY_S = 0.05
_NAME = "pool.msgpack"


class Table(msgspec.Struct, frozen=True):
    """`priorities` by the names of objectives; `is_ready` when the endpoints' source has been read once."""

    endpoints: dict[int, Endpoint]
    adapters: dict[int, Adapters]
    priorities: dict[str, int]
    is_ready: bool


_decoder = msgspec.msgpack.Decoder(Table)


def read_table(folder: Path) -> Table | None:
    """None before there is one. It is replaced whole, so that half of it is never seen."""
    try:
        return _decoder.decode((folder / _NAME).read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{folder / _NAME} can't be read: {error}") from error


async def publish_table(
    folder: Path, pool: Pool, priorities: Callable[[], Mapping[str, int]], is_ready: Callable[[], bool]
) -> None:
    """Writes the table whenever it has changed, until cancelled."""
    last: Table | None = None
    while True:
        table = Table(dict(pool.endpoints), dict(pool.adapters), dict(priorities()), is_ready())
        if table != last:
            partial = folder / f"{_NAME}.new"
            partial.write_bytes(msgspec.msgpack.encode(table))
            os.replace(partial, folder / _NAME)
            last = table
        await asyncio.sleep(_EVERY_S)


async def follow_table(folder: Path, adopt: Callable[[Table], None]) -> None:
    """Takes over each new table, until cancelled."""
    seen: Hashable = None
    while True:
        stamp = file_stamp(folder / _NAME)
        if stamp != seen:
            table = read_table(folder)
            if table is not None:
                adopt(table)
            seen = stamp
        await asyncio.sleep(_EVERY_S)
