"""A part that is a module of this project."""

import os
import sys
from collections.abc import Mapping, Sequence

from headroom.processes.supervisor import Part


def python_part(
    name: str,
    module: str,
    ports: Sequence[int],
    ready: str,
    flags: Sequence[object],
    *,
    redundant: bool = False,
    env: Mapping[str, str] | None = None,
) -> Part:
    """Return `python -m module` with these flags. It is ready when its last port answers the path `ready`.

    `env` is added to this process's environment.
    """
    # All processes share a few cores; more threads of numeric libraries would compete for them.
    whole = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    command = [sys.executable, "-m", module, *map(str, flags)]
    return Part(name, command, ports, f"http://127.0.0.1:{ports[-1]}{ready}", whole, redundant)
