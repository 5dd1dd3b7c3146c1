"""Test the endpoints and objectives that the picker discovers from a real API server."""

import pytest

from epp.kubernetes.client import Client
from epp.kubernetes.objects import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.kubernetes.targets import PoolName, TargetPods
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.namespace import LABELS, Namespace
from tests.kubernetes.running_discovery import eventually, running_discovery

pytestmark = pytest.mark.slow


async def test_endpoints_follow_the_readiness_of_pods(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("first", "10.0.0.1", labels={**LABELS, "role": "decode"})
    async with running_discovery(client, namespace.name) as picker:
        await picker.wait_for("10.0.0.1:8000")
        (endpoint,) = picker.pool.endpoints.values()
        assert (endpoint.name, endpoint.labels) == ("first", {"app": "vllm", "role": "decode"})
        assert picker.discovery.is_ready

        namespace.add_pod("second")
        namespace.add_pod("third", "10.0.0.3", ready=False)
        namespace.add_pod("other", "10.0.0.4", labels={"app": "database"})
        namespace.set_status("second", "10.0.0.2", ready=True)
        await picker.wait_for("10.0.0.1:8000", "10.0.0.2:8000")

        namespace.set_status("third", "10.0.0.3", ready=True)
        await picker.wait_for("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
        namespace.set_status("second", "10.0.0.2", ready=False)
        await picker.wait_for("10.0.0.1:8000", "10.0.0.3:8000")

        namespace.terminate_pod("first")
        await picker.wait_for("10.0.0.3:8000")
        namespace.remove_pod("third")
        await picker.wait_for()
        assert picker.discovery.is_ready


async def test_a_burst_of_changes_is_published_in_few_steps(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    async with running_discovery(client, namespace.name) as picker:
        await eventually(lambda: picker.discovery.is_ready)
        for i in range(1, 41):
            namespace.add_pod(f"pod-{i}", f"10.0.1.{i}")
        await picker.wait_for(*(f"10.0.1.{i}:8000" for i in range(1, 41)))
        # The test blocks its event loop while it adds the pods, so they arrive as one burst.
        assert picker.discovery.publications <= 4


async def test_endpoints_follow_a_deployment(client: Client, plane: ControlPlane, namespace: Namespace) -> None:
    namespace.set_pool()
    plane.start_controller_manager("--controllers=deployment-controller,replicaset-controller", "--leader-elect=false")
    async with running_discovery(client, namespace.name) as picker:
        namespace.deploy("vllm", 3)
        await eventually(lambda: len(namespace.pods()) == 3)
        for i, name in enumerate(sorted(namespace.pods())):
            namespace.set_status(name, f"10.0.0.{i}", ready=True)
        await picker.wait_for("10.0.0.0:8000", "10.0.0.1:8000", "10.0.0.2:8000")
        namespace.deploy("vllm", 1)
        await eventually(lambda: len(picker.addresses) == 1)
    plane.end("kube-controller-manager")


async def test_a_changed_selector_selects_other_pods(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("old", "10.0.0.1")
    namespace.add_pod("new", "10.0.0.2", labels={"app": "sglang", "zone": "a"})
    namespace.add_pod("elsewhere", "10.0.0.3", labels={"app": "sglang", "zone": "b"})
    async with running_discovery(client, namespace.name) as picker:
        await picker.wait_for("10.0.0.1:8000")
        namespace.set_pool(labels={"app": "sglang", "zone": "a"})
        await picker.wait_for("10.0.0.2:8000")
        namespace.add_pod("late", "10.0.0.4")
        namespace.set_pool(ports=(9000,), labels={"app": "sglang"})
        await picker.wait_for("10.0.0.2:9000", "10.0.0.3:9000")


async def test_a_pool_may_appear_disappear_and_return(client: Client, namespace: Namespace) -> None:
    namespace.add_pod("pod", "10.0.0.1")
    namespace.set_pool("another")
    async with running_discovery(client, namespace.name) as picker:
        await eventually(lambda: picker.discovery.counts.watches >= 2)
        assert not picker.discovery.is_ready

        namespace.set_pool()
        await picker.wait_for("10.0.0.1:8000")
        await eventually(lambda: picker.discovery.is_ready)

        namespace.remove_pool()
        await eventually(lambda: not picker.discovery.is_ready)
        assert not picker.addresses

        namespace.add_pod("second", "10.0.0.2")
        namespace.set_pool()
        await picker.wait_for("10.0.0.1:8000", "10.0.0.2:8000")
        assert picker.discovery.is_ready


async def test_pools_of_two_api_groups_do_not_mix(client: Client, namespace: Namespace) -> None:
    namespace.set_pool(labels={"app": "vllm"})
    namespace.set_experimental_pool(labels={"app": "sglang"}, port=9000)
    namespace.add_pod("vllm", "10.0.0.1")
    namespace.add_pod("sglang", "10.0.0.2", labels={"app": "sglang"})
    namespace.set_objective("of-v1", 5, group=POOL_GROUP)
    namespace.set_objective("of-v1alpha2", 7, group=EXPERIMENTAL_GROUP)
    async with running_discovery(client, namespace.name, PoolName("pool", EXPERIMENTAL_GROUP)) as picker:
        await picker.wait_for("10.0.0.2:9000")
        await eventually(lambda: len(picker.objectives) == 1)
        assert picker.objectives.priority_of("of-v1alpha2") == 7
    async with running_discovery(client, namespace.name, PoolName("pool", POOL_GROUP)) as picker:
        await picker.wait_for("10.0.0.1:8000")
        await eventually(lambda: picker.objectives.priority_of("of-v1") == 5)


async def test_objectives_of_the_pool_set_priorities(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.set_objective("critical", 10)
    namespace.set_objective("batch-sheddable", None)
    namespace.set_objective("other", 3, pool="another")
    async with running_discovery(client, namespace.name) as picker:
        await eventually(lambda: len(picker.objectives) == 2)
        assert picker.objectives.priority_of("critical") == 10
        # The objective is known and sets no priority.
        assert picker.objectives.priority_of("batch-sheddable") == 0
        assert picker.objectives.priority_of("other") == 0

        namespace.set_objective("critical", -2)
        await eventually(lambda: picker.objectives.priority_of("critical") == -2)
        namespace.remove_objective("batch-sheddable")
        await eventually(lambda: picker.objectives.priority_of("batch-sheddable") == -1)


async def test_flags_select_pods_without_a_pool_resource(client: Client, namespace: Namespace) -> None:
    namespace.add_pod("pod", "10.0.0.1")
    namespace.add_pod("ipv6", "fd00::1", annotations={"llm-d.ai/active-ports": "8001"})
    async with running_discovery(client, namespace.name, TargetPods(LABELS, (8000, 8001))) as picker:
        await picker.wait_for("10.0.0.1:8000", "10.0.0.1:8001", "[fd00::1]:8001")
        assert picker.names == {"pod-rank-0", "pod-rank-1", "ipv6-rank-1"}
        namespace.annotate("pod", {"inference.networking.k8s.io/active-ports": "8000"})
        await picker.wait_for("10.0.0.1:8000", "[fd00::1]:8001")
