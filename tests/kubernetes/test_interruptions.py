"""Test the picker's endpoints while and after the API server is unreachable."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from epp.kubernetes.access import connect
from epp.kubernetes.client import Client
from epp.kubernetes.objects import EXPERIMENTAL_GROUP
from epp.kubernetes.targets import PoolName
from tests.kubernetes.control_plane import CRDS, ControlPlane
from tests.kubernetes.gate import Gate
from tests.kubernetes.namespace import Namespace
from tests.kubernetes.running_discovery import eventually, running_discovery

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def gate(plane: ControlPlane) -> AsyncIterator[Gate]:
    async with Gate(plane.port) as made:
        yield made


@pytest_asyncio.fixture
async def gated(plane: ControlPlane, namespace: Namespace, gate: Gate) -> AsyncIterator[Client]:
    """A client that reaches the API server only through the gate."""
    async with connect(str(plane.kubeconfig(namespace.picker_token, gate.url))) as client:
        yield client


async def test_broken_watches_resume_without_a_new_list(gated: Client, gate: Gate, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("first", "10.0.0.1")
    namespace.add_pod("second", "10.0.0.2")
    async with running_discovery(gated, namespace.name) as picker:
        await picker.wait_for("10.0.0.1:8000", "10.0.0.2:8000")
        await eventually(lambda: picker.discovery.counts.watches == 3)
        lists = picker.discovery.counts.lists
        gate.shut()
        await eventually(lambda: picker.discovery.counts.failures >= 3)
        namespace.remove_pod("first")
        namespace.add_pod("third", "10.0.0.3")
        namespace.set_objective("critical", 10)
        namespace.set_pool(ports=(9000,))
        assert picker.addresses == {"10.0.0.1:8000", "10.0.0.2:8000"}
        assert picker.discovery.is_ready
        gate.open()
        await picker.wait_for("10.0.0.2:9000", "10.0.0.3:9000")
        await eventually(lambda: picker.objectives.priority_of("critical") == 10)
        assert picker.discovery.counts.lists == lists


async def test_endpoints_outlast_a_restart_of_the_api_server(
    client: Client, plane: ControlPlane, namespace: Namespace
) -> None:
    namespace.set_pool()
    namespace.add_pod("first", "10.0.0.1")
    async with running_discovery(client, namespace.name) as picker:
        await picker.wait_for("10.0.0.1:8000")
        plane.end("kube-apiserver")
        await eventually(lambda: picker.discovery.counts.failures >= 3)
        assert picker.addresses == {"10.0.0.1:8000"}
        assert picker.discovery.is_ready
        await asyncio.to_thread(plane.start_api_server)
        namespace.add_pod("second", "10.0.0.2")
        namespace.set_objective("critical", 10)
        namespace.set_pool(ports=(9000,))
        await picker.wait_for("10.0.0.1:9000", "10.0.0.2:9000")
        await eventually(lambda: picker.objectives.priority_of("critical") == 10)


async def test_everything_is_listed_again_when_the_history_is_lost(
    gated: Client, gate: Gate, plane: ControlPlane, namespace: Namespace
) -> None:
    namespace.set_pool()
    namespace.set_objective("critical", 10)
    namespace.add_pod("first", "10.0.0.1")
    namespace.add_pod("second", "10.0.0.2")
    async with running_discovery(gated, namespace.name) as picker:
        await picker.wait_for("10.0.0.1:8000", "10.0.0.2:8000")
        gate.shut()
        await eventually(lambda: picker.discovery.counts.failures >= 3)
        namespace.remove_pod("first")
        namespace.remove_objective("critical")
        namespace.add_pod("third", "10.0.0.3")
        namespace.set_pool(ports=(9000,))
        # Neither etcd nor the API server keeps the history of these changes.
        plane.compact()
        plane.end("kube-apiserver")
        await asyncio.to_thread(plane.start_api_server)
        gate.open()
        await picker.wait_for("10.0.0.2:9000", "10.0.0.3:9000")
        await eventually(lambda: len(picker.objectives) == 0)
        assert picker.discovery.counts.expired > 0


async def test_discovery_waits_for_a_resource_definition(
    client: Client, plane: ControlPlane, namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    definition = "inferencepools.inference.networking.x-k8s.io"
    plane.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition}")
    namespace.add_pod("pod", "10.0.0.1")
    async with running_discovery(client, namespace.name, PoolName("pool", EXPERIMENTAL_GROUP)) as picker:
        await eventually(lambda: f"{definition} in" in caplog.text)
        assert "the custom resource definition must be installed" in caplog.text
        plane.apply(CRDS.read_text())
        namespace.set_experimental_pool()
        await picker.wait_for("10.0.0.1:8000")


async def test_discovery_waits_for_permission(plane: ControlPlane, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("pod", "10.0.0.1")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "stranger", "namespace": namespace.name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "headroom-epp"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "stranger"}],
    }
    async with (
        connect(str(plane.kubeconfig(plane.tokens["stranger"]))) as client,
        running_discovery(client, namespace.name) as picker,
    ):
        await eventually(lambda: picker.discovery.counts.failures >= 3)
        assert not picker.discovery.is_ready
        plane.apply(yaml.safe_dump(binding))
        await picker.wait_for("10.0.0.1:8000")


async def test_five_hundred_pods_come_and_go_while_watches_break(
    gated: Client, gate: Gate, namespace: Namespace
) -> None:
    rng = random.Random(7)
    namespace.set_pool()
    ready: dict[str, str] = {}

    def churn() -> None:
        for number in range(500):
            name, ip = f"pod-{number}", f"10.1.{number // 250}.{number % 250 + 1}"
            namespace.add_pod(name, ip, ready=rng.random() < 0.8)
            ready[name] = ip
            if rng.random() < 0.3:
                namespace.remove_pod(gone := rng.choice(list(ready)))
                del ready[gone]
            if ready and rng.random() < 0.3:
                changed = rng.choice(list(ready))
                namespace.set_status(changed, ready[changed], ready=rng.random() < 0.5)

    async with running_discovery(gated, namespace.name) as picker:
        work = asyncio.create_task(asyncio.to_thread(churn))
        while not work.done():
            gate.shut()
            await asyncio.sleep(0.2)
            gate.open()
            await asyncio.wait([work], timeout=1)
        await work
        expected = {f"{address}:8000" for address in namespace.ready_addresses()}
        assert len(expected) > 150
        await eventually(lambda: picker.addresses == expected, lambda: f"{len(picker.addresses)} of {len(expected)}")
        assert picker.discovery.counts.failures > 0
