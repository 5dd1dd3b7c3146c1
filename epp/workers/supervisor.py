"""Several pickers on one port: requests in flight, and which prompts went where, are in shared memory.

The first worker alone finds the endpoints and scrapes them, and tells the others of them (table.py).
"""

import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from epp.pool.state import PoolState
from epp.workers.prefix_ring import rings_bytes
from serving import workers
from serving.workers import Place

_STATE: Final = "state"
_RINGS: Final = "prefixes"


def supervise(count: int, arguments: Sequence[str]) -> None:
    """Run `count` workers until SIGTERM or SIGINT. Raise StartError when a worker gives up."""
    with tempfile.TemporaryDirectory(prefix="headroom-epp-") as name:
        folder = Path(name)
        (folder / _STATE).write_bytes(bytes(PoolState.size_bytes(count)))
        (folder / _RINGS).write_bytes(bytes(rings_bytes(count)))
        state = pool_state(Place(0, count, folder))
        state.clear_all()
        # A worker's requests in flight have ended with it.
        workers.supervise("epp", count, folder, arguments, state.clear_worker)


def pool_state(place: Place) -> PoolState:
    return PoolState(_map_file(place.folder / _STATE), place.index, place.count)


def prefix_rings(place: Place) -> mmap.mmap:
    return _map_file(place.folder / _RINGS)


def _map_file(path: Path) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)
