"""Several predictors on one port. Each polls the model store by itself, and all write statistics to one file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from predictor.shared_totals import SharedTotals, create_slots
from serving import workers
from serving.exceptions import StartError
from serving.listening import Address, listen
from serving.workers import Place

_TOTALS: Final = "totals"


def supervise(count: int, host: str, port: int, arguments: Sequence[str]) -> None:
    """Run `count` workers until SIGTERM or SIGINT; raise StartError if the port is taken or a worker can't start."""
    if not port:
        raise StartError("--workers needs a --port, so that all of them listen on the same one")
    # Fail if the port is taken: workers listen on a shared port, and would share it with a stranger's process.
    listen(Address(host, port)).close()
    with tempfile.TemporaryDirectory(prefix="headroom-predictor-") as name:
        folder = Path(name)
        create_slots(folder / _TOTALS, count)
        workers.supervise("predictor", count, folder, arguments)


def shared_totals(place: Place) -> SharedTotals:
    """Return the workers' shared statistics for the worker at this place."""
    return SharedTotals(place.index, place.folder / _TOTALS)
