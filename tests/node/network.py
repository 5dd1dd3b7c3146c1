"""Each cluster's own subnet: a bridge, and for each pod a network namespace with an address.

Only descriptors keep the namespaces alive, so they vanish with the agent's process. After a SIGKILL only the bridge
stays; the next cluster that takes the subnet removes it.
"""

import asyncio
import os
import shutil
import socket
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_NUMBERS = range(16, 250)
# As with containerd, every user in a pod may bind ports below 1024.
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
        """The machine's address as pods see it, which is also the node's address."""
        return f"10.244.{self.number}.1"

    @property
    def services(self) -> str:
        return f"10.245.{self.number}.0/24"

    @property
    def api_server(self) -> str:
        """The first address for Services. It belongs to the Service `kubernetes` in the default namespace."""
        return f"10.245.{self.number}.1"

    @property
    def dns(self) -> str:
        return f"10.245.{self.number}.10"

    def pod(self, number: int) -> str:
        """Return the address of the pod with that number, from 0 to 252."""
        return f"10.244.{self.number}.{2 + number}"


@dataclass(frozen=True)
class PodNetwork:
    """A pod's address and an open descriptor of its network namespace."""

    address: str
    namespace: int

    def close(self) -> None:
        os.close(self.namespace)


@contextmanager
def free_subnet() -> Iterator[Subnet]:
    """Reserve a subnet that no other cluster on this machine uses. Raise NetworkError if none is free."""
    for number in _NUMBERS:
        # A name that the kernel keeps for this network namespace, as it does the bridge's, while the socket is open.
        with socket.socket(socket.AF_UNIX) as taken:
            try:
                taken.bind(f"\0headroom-subnet-{number}")
            except OSError:
                continue
            yield Subnet(number)
            return
    raise NetworkError("no subnet of 10.244.0.0/16 is free")


def check_isolation() -> None:
    """Raise NetworkError if this process may not create what pods need. The text says what is missing."""
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            raise NetworkError(f"there is no program {program}")
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")
    with free_subnet() as subnet, make_bridge(subnet):
        pass


@contextmanager
def make_bridge(subnet: Subnet) -> Iterator[None]:
    """Make the subnet's bridge and remove it at the end. Raise NetworkError if this process may not make one."""
    remove_bridge(subnet)
    # Set a fixed hardware address. By default a bridge has the lowest address of its ports, which changes as pods come
    # and go. Packets from other pods to the old address are lost until those pods resolve the address again.
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
    """Make the machine answer for a Service's address."""
    _ip("addr", "replace", f"{address}/32", "dev", subnet.bridge)


def remove_address(subnet: Subnet, address: str) -> None:
    with suppress(NetworkError):
        _ip("addr", "delete", f"{address}/32", "dev", subnet.bridge)


async def pod_network(subnet: Subnet, number: int) -> PodNetwork:
    """Make a network namespace with loopback, and with eth0 on the bridge."""
    address = subnet.pod(number)
    # The namespace's first process configures it. Afterwards a descriptor keeps the namespace alive.
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", _SETUP, address, subnet.gateway, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        await _expect(process, b"made\n")
        near = f"hr{subnet.number}p{number}"
        far = ("peer", "name", "eth0", "netns", str(process.pid))
        await asyncio.to_thread(_ip, "link", "add", near, "master", subnet.bridge, "up", "type", "veth", *far)
        await _expect(process, b"ready\n")
        return PodNetwork(address, os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        await process.communicate(b"go\n")


async def _expect(process: asyncio.subprocess.Process, word: bytes) -> None:
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
