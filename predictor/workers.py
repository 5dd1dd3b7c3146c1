"""Several predictors on one port: each follows the model store by itself, and together they count in one file."""

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
    """Run so many workers until SIGTERM or SIGINT. StartError when the port is taken, or a worker gives up."""
    if not port:
        raise StartError("--workers needs a --port, so that all of them listen on the same one")
    # Workers would share their port with a stranger that shares it too.
    listen(Address(host, port)).close()
    with tempfile.TemporaryDirectory(prefix="headroom-predictor-") as name:
        folder = Path(name)
        create_slots(folder / _TOTALS, count)
        workers.supervise("predictor", count, folder, arguments)


def shared_totals(place: Place) -> SharedTotals:
    """Return what the workers have counted, as the worker of this place sees it."""
    return SharedTotals(place.index, place.folder / _TOTALS)
