"""The table that the first worker publishes for the others: endpoints with slots, adapters, declared priorities."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from epp.exceptions import ConfigError
from epp.pool.objectives import Objectives
from epp.pool.pool import Pool
from epp.scheduling.snapshot import Adapters, Endpoint
from serving.watched_file import Stamp, file_stamp

_EVERY_S = 0.05
_NAME = "pool.msgpack"


class Table(msgspec.Struct, frozen=True):
    """`priorities` are by the names of objectives. `is_ready` says that the source of endpoints has been read once."""

    endpoints: dict[int, Endpoint]
    adapters: dict[int, Adapters]
    priorities: dict[str, int]
    is_ready: bool


_decoder = msgspec.msgpack.Decoder(Table)


def read_table(folder: Path) -> Table | None:
    """Return the table, or None before there is one. A writer replaces it whole, so no reader sees half of it."""
    try:
        return _decoder.decode((folder / _NAME).read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{folder / _NAME} can't be read: {error}") from error


async def publish_table(
    folder: Path, pool: Pool, priorities: Callable[[], Mapping[str, int]], is_ready: Callable[[], bool]
) -> None:
    """Write the table whenever it has changed, until cancelled."""
    last: Table | None = None
    while True:
        table = Table(dict(pool.endpoints), dict(pool.adapters), dict(priorities()), is_ready())
        if table != last:
            partial = folder / f"{_NAME}.new"
            partial.write_bytes(msgspec.msgpack.encode(table))
            os.replace(partial, folder / _NAME)
            last = table
        await asyncio.sleep(_EVERY_S)


class FirstWorker:
    """The first worker as a source of endpoints, for the others."""

    def __init__(self, folder: Path, pool: Pool) -> None:
        self.objectives = Objectives()
        self.is_ready = False
        self._folder = folder
        self._pool = pool

    async def answer(self) -> None:
        """Wait for the first worker's table, because without one this worker could only refuse."""
        while (table := read_table(self._folder)) is None:  # noqa: ASYNC110 (another process writes it)
            await asyncio.sleep(_EVERY_S)
        self._adopt(table)

    async def run(self) -> None:
        """Adopt each new table, until cancelled."""
        seen: Stamp | None = None
        while True:
            stamp = file_stamp(self._folder / _NAME)
            if stamp != seen:
                table = read_table(self._folder)
                if table is not None:
                    self._adopt(table)
                seen = stamp
            await asyncio.sleep(_EVERY_S)

    def _adopt(self, table: Table) -> None:
        self.is_ready = table.is_ready
        self._pool.adopt_endpoints(table.endpoints)
        self._pool.adopt_adapters(table.adapters)
        self.objectives.replace(table.priorities)
