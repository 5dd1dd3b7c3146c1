"""The agent's order to tests.node.launch: start a container's process, or run one within a container."""

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """A file or folder of the machine, mounted at a path of the container. `source` has no symbolic links."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ProcessSpec:
    """A container's process.

    `join_pid` is a process id, or 0. If set, the new process joins that process's namespaces and sees its files.
    """

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
    """The folder in which the container's root file system is assembled."""
    mounts: list[Mount] = dataclasses.field(default_factory=list)
    join_pid: int = 0

    def encode(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()


def decode(data: bytes) -> ProcessSpec:
    fields = json.loads(data)
    return ProcessSpec(**{**fields, "mounts": [Mount(**mount) for mount in fields["mounts"]]})
