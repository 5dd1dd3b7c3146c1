"""Test that nothing of a container outlives a killed agent, and that the bridge keeps its address."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import until
from tests.node.images import ROOT
from tests.node.network import NetworkError, Subnet, check_isolation, free_subnet, make_bridge, pod_network

pytestmark = pytest.mark.slow

# Starts a container with a child process, as the agent does.
KILLED = """
import asyncio, json, sys
from pathlib import Path
from tests.node import linux
from tests.node.network import Subnet, make_bridge, pod_network
from tests.node.process import start
from tests.node.process_spec import ProcessSpec

async def main(folder, subnet):
    network = await pod_network(subnet, 0)
    spec = ProcessSpec(
        argv=["sh", "-c", "sleep 600 & exec sleep 601"], env={"PATH": "/usr/bin:/bin"}, uid=1, gid=1, hostname="x",
        network=network.namespace, scratch=str(folder),
    )
    process = await start(spec)
    print(json.dumps([process.pid, process.outer.pid]), flush=True)
    await process.wait()

linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
subnet = Subnet(int(sys.argv[2]))
with make_bridge(subnet):
    asyncio.run(main(Path(sys.argv[1]), subnet))
"""


@pytest.fixture
def subnet() -> Iterator[Subnet]:
    try:
        check_isolation()
    except NetworkError as error:
        pytest.skip(f"no networks here: {error}")
    with free_subnet() as found:
        yield found


def test_nothing_outlives_a_killed_agent(tmp_path: Path, subnet: Subnet) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path), str(subnet.number)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout
            pids = json.loads(agent.stdout.readline())
            # The container's process, its parent outside, and its child.
            until(lambda: len(in_folder(tmp_path)) == 3)
            assert set(map(str, pids)) < set(in_folder(tmp_path))
        finally:
            agent.send_signal(signal.SIGKILL)
    until(lambda: not in_folder(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert list(tmp_path.iterdir()) == []
    until(lambda: not [name for name in os.listdir("/sys/class/net") if name.startswith(f"hr{subnet.number}p")])
    # The next user of this subnet removes the bridge.
    with make_bridge(subnet):
        pass
    assert subnet.bridge not in os.listdir("/sys/class/net")


async def test_the_bridges_address_does_not_change_with_its_pods(subnet: Subnet) -> None:
    with make_bridge(subnet):
        before = link_address(subnet)
        pods = [await pod_network(subnet, number) for number in range(4)]
        assert link_address(subnet) == before
        for pod in pods:
            pod.close()
        assert link_address(subnet) == before


def link_address(subnet: Subnet) -> str:
    return Path(f"/sys/class/net/{subnet.bridge}/address").read_text()


def in_folder(folder: Path) -> list[str]:
    """Return the ids of processes with a mount below the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if str(folder) in path.read_text():
                found.append(path.parent.name)
    return found
