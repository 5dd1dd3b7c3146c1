"""A subnet of its own for each cluster: a bridge, and a network namespace with an address for each pod.

Namespaces live by their descriptors alone, so that they are gone when the agent's process is. Only the bridge would
stay after a SIGKILL; whoever takes its subnet next removes it.
"""

import asyncio
import fcntl
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_NUMBERS = range(16, 250)
# As containerd has it: ports below 1024 are for everyone in a pod.
_SETUP = """
ip link set lo up && echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start && echo made && read go &&
ip addr add "$0/24" dev eth0 && ip link set eth0 up && ip route add default via "$1" && echo ready && read go
"""


class NetworkError(Exception):
    """The machine does not let this process make networks; the text says what failed."""


@dataclass(frozen=True)
class Subnet:
    """10.244.`number`.0/24 for pods, 10.245.`number`.0/24 for Services."""

    number: int

    @property
    def bridge(self) -> str:
        return f"headroom{self.number}"

    @property
    def gateway(self) -> str:
        """The machine's address, as pods see it: the node's."""
        return f"10.244.{self.number}.1"

    @property
    def services(self) -> str:
        return f"10.245.{self.number}.0/24"

    @property
    def api_server(self) -> str:
        """The first of Services, which is that of `kubernetes` in the default namespace."""
        return f"10.245.{self.number}.1"

    @property
    def dns(self) -> str:
        return f"10.245.{self.number}.10"

    def pod(self, number: int) -> str:
        """The address of the pod of that number, from 0 to 252."""
        return f"10.244.{self.number}.{2 + number}"


@dataclass(frozen=True)
class PodNetwork:
    """`namespace` is a descriptor."""

    address: str
    namespace: int

    def close(self) -> None:
        os.close(self.namespace)


@contextmanager
def free_subnet() -> Iterator[Subnet]:
    """One that no other cluster on this machine has for the time being."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"
    folder.mkdir(parents=True, exist_ok=True)
    for number in _NUMBERS:
        with (folder / f"subnet-{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield Subnet(number)
            return
    raise NetworkError("no subnet of 10.244.0.0/16 is free")


def check_isolation() -> None:
    """NetworkError when this process may not do what pods need: the text says what is missing."""
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            raise NetworkError(f"there is no program {program}")
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")
    with free_subnet() as subnet, bridged(subnet):
        pass


@contextmanager
def bridged(subnet: Subnet) -> Iterator[None]:
    """The subnet's bridge. NetworkError when this process may not make one."""
    remove_bridge(subnet)
    # Of its own: otherwise a bridge has the lowest address of its ports, which changes as pods come and go, and what
    # other pods send to the old one is lost until they ask again.
    _ip("link", "add", subnet.bridge, "address", f"0a:58:0a:f4:{subnet.number:02x}:01", "type", "bridge")
    try:
        _ip("addr", "add", f"{subnet.gateway}/24", "dev", subnet.bridge)
        _ip("link", "set", subnet.bridge, "up")
        yield
    finally:
        remove_bridge(subnet)


def remove_bridge(subnet: Subnet) -> None:
    with suppress(NetworkError):
        _ip("link", "delete", subnet.bridge)


def add_address(subnet: Subnet, address: str) -> None:
    """A Service's, which the machine answers for from now on."""
    _ip("addr", "replace", f"{address}/32", "dev", subnet.bridge)


def remove_address(subnet: Subnet, address: str) -> None:
    with suppress(NetworkError):
        _ip("addr", "delete", f"{address}/32", "dev", subnet.bridge)


async def pod_network(subnet: Subnet, number: int) -> PodNetwork:
    """A namespace with loopback, and eth0 on the bridge."""
    address = subnet.pod(number)
    # The namespace's first process makes it ready; then a descriptor keeps the namespace.
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", _SETUP, address, subnet.gateway, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        await _said(process, b"made\n")
        near = f"hr{subnet.number}p{number}"
        far = ("peer", "name", "eth0", "netns", str(process.pid))
        await asyncio.to_thread(_ip, "link", "add", near, "master", subnet.bridge, "up", "type", "veth", *far)
        await _said(process, b"ready\n")
        return PodNetwork(address, os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        await process.communicate(b"go\n")


async def _said(process: asyncio.subprocess.Process, word: bytes) -> None:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    if word != b"made\n":
        process.stdin.write(b"go\n")
    if await process.stdout.readline() != word:
        raise NetworkError((await process.stderr.read()).decode().strip())


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
