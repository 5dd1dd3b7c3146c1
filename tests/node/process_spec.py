"""What the agent tells tests.node.launch to start, or to run within what has been started."""

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """A file or folder of the machine at a path of the container; `source` has no symbolic links."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ProcessSpec:
    """A container's process. With `beside`, a process's id, one that runs in its namespaces, among its files."""

    argv: list[str]
    env: dict[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: list[int] = dataclasses.field(default_factory=list)
    capabilities: list[int] = dataclasses.field(default_factory=list)
    no_new_privileges: bool = True
    hostname: str = ""
    network: int = -1
    """Descriptor of the network namespace."""
    read_only_root: bool = False
    scratch: str = ""
    """A folder where the container's root file system is put together."""
    mounts: list[Mount] = dataclasses.field(default_factory=list)
    beside: int = 0

    def encode(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()


def decode(data: bytes) -> ProcessSpec:
    fields = json.loads(data)
    return ProcessSpec(**{**fields, "mounts": [Mount(**mount) for mount in fields["mounts"]]})
