"""What the picker knows of a pool, beside a real API server that says so."""

import pytest

from epp.kubernetes.client import Client
from epp.kubernetes.objects import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.kubernetes.targets import PoolName, TargetPods
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.following import eventually, following
from tests.kubernetes.namespace import LABELS, Namespace

pytestmark = pytest.mark.slow


async def test_endpoints_follow_the_readiness_of_pods(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("first", "10.0.0.1", labels={**LABELS, "role": "decode"})
    async with following(client, namespace.name) as picker:
        await picker.becomes("10.0.0.1:8000")
        (endpoint,) = picker.pool.endpoints.values()
        assert (endpoint.name, endpoint.labels) == ("first", {"app": "vllm", "role": "decode"})
        assert picker.discovery.is_ready

        namespace.add_pod("second")
        namespace.add_pod("third", "10.0.0.3", ready=False)
        namespace.add_pod("other", "10.0.0.4", labels={"app": "database"})
        namespace.set_status("second", "10.0.0.2", ready=True)
        await picker.becomes("10.0.0.1:8000", "10.0.0.2:8000")

        namespace.set_status("third", "10.0.0.3", ready=True)
        await picker.becomes("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
        namespace.set_status("second", "10.0.0.2", ready=False)
        await picker.becomes("10.0.0.1:8000", "10.0.0.3:8000")

        namespace.terminate_pod("first")
        await picker.becomes("10.0.0.3:8000")
        namespace.remove_pod("third")
        await picker.becomes()
        assert picker.discovery.is_ready


async def test_a_burst_of_changes_is_taken_over_in_few_steps(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    async with following(client, namespace.name) as picker:
        await eventually(lambda: picker.discovery.is_ready)
        for i in range(1, 41):
            namespace.add_pod(f"pod-{i}", f"10.0.1.{i}")
        await picker.becomes(*(f"10.0.1.{i}:8000" for i in range(1, 41)))
        # The test's own loop stood still while it made them, as a burst would find it.
        assert picker.discovery.publications <= 4


async def test_endpoints_follow_a_deployment(client: Client, plane: ControlPlane, namespace: Namespace) -> None:
    namespace.set_pool()
    plane.start_controller_manager("--controllers=deployment-controller,replicaset-controller", "--leader-elect=false")
    async with following(client, namespace.name) as picker:
        namespace.deploy("vllm", 3)
        await eventually(lambda: len(namespace.pods()) == 3)
        for i, name in enumerate(sorted(namespace.pods())):
            namespace.set_status(name, f"10.0.0.{i}", ready=True)
        await picker.becomes("10.0.0.0:8000", "10.0.0.1:8000", "10.0.0.2:8000")
        namespace.deploy("vllm", 1)
        await eventually(lambda: len(picker.addresses) == 1)
    plane.end("kube-controller-manager")


async def test_another_selector_means_other_pods(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.add_pod("old", "10.0.0.1")
    namespace.add_pod("new", "10.0.0.2", labels={"app": "sglang", "zone": "a"})
    namespace.add_pod("elsewhere", "10.0.0.3", labels={"app": "sglang", "zone": "b"})
    async with following(client, namespace.name) as picker:
        await picker.becomes("10.0.0.1:8000")
        namespace.set_pool(labels={"app": "sglang", "zone": "a"})
        await picker.becomes("10.0.0.2:8000")
        namespace.add_pod("late", "10.0.0.4")
        namespace.set_pool(ports=(9000,), labels={"app": "sglang"})
        await picker.becomes("10.0.0.2:9000", "10.0.0.3:9000")


async def test_a_pool_may_come_go_and_come_again(client: Client, namespace: Namespace) -> None:
    namespace.add_pod("pod", "10.0.0.1")
    namespace.set_pool("another")
    async with following(client, namespace.name) as picker:
        await eventually(lambda: picker.discovery.counts.watches >= 2)
        assert not picker.discovery.is_ready

        namespace.set_pool()
        await picker.becomes("10.0.0.1:8000")
        await eventually(lambda: picker.discovery.is_ready)

        namespace.remove_pool()
        await eventually(lambda: not picker.discovery.is_ready)
        assert not picker.addresses

        namespace.add_pod("second", "10.0.0.2")
        namespace.set_pool()
        await picker.becomes("10.0.0.1:8000", "10.0.0.2:8000")
        assert picker.discovery.is_ready


async def test_each_group_has_pools_of_its_own(client: Client, namespace: Namespace) -> None:
    namespace.set_pool(labels={"app": "vllm"})
    namespace.set_experimental_pool(labels={"app": "sglang"}, port=9000)
    namespace.add_pod("vllm", "10.0.0.1")
    namespace.add_pod("sglang", "10.0.0.2", labels={"app": "sglang"})
    namespace.set_objective("of-v1", 5, group=POOL_GROUP)
    namespace.set_objective("of-v1alpha2", 7, group=EXPERIMENTAL_GROUP)
    async with following(client, namespace.name, PoolName("pool", EXPERIMENTAL_GROUP)) as picker:
        await picker.becomes("10.0.0.2:9000")
        await eventually(lambda: len(picker.objectives) == 1)
        assert picker.objectives.priority_of("of-v1alpha2") == 7
    async with following(client, namespace.name, PoolName("pool", POOL_GROUP)) as picker:
        await picker.becomes("10.0.0.1:8000")
        await eventually(lambda: picker.objectives.priority_of("of-v1") == 5)


async def test_objectives_of_this_pool_have_their_priority(client: Client, namespace: Namespace) -> None:
    namespace.set_pool()
    namespace.set_objective("critical", 10)
    namespace.set_objective("batch-sheddable", None)
    namespace.set_objective("other", 3, pool="another")
    async with following(client, namespace.name) as picker:
        await eventually(lambda: len(picker.objectives) == 2)
        assert picker.objectives.priority_of("critical") == 10
        # It is known, and says nothing.
        assert picker.objectives.priority_of("batch-sheddable") == 0
        assert picker.objectives.priority_of("other") == 0

        namespace.set_objective("critical", -2)
        await eventually(lambda: picker.objectives.priority_of("critical") == -2)
        namespace.remove_objective("batch-sheddable")
        await eventually(lambda: picker.objectives.priority_of("batch-sheddable") == -1)


async def test_without_a_pool_resource_flags_say_which_pods(client: Client, namespace: Namespace) -> None:
    namespace.add_pod("pod", "10.0.0.1")
    namespace.add_pod("ipv6", "fd00::1", annotations={"llm-d.ai/active-ports": "8001"})
    async with following(client, namespace.name, TargetPods(LABELS, (8000, 8001))) as picker:
        await picker.becomes("10.0.0.1:8000", "10.0.0.1:8001", "[fd00::1]:8001")
        assert picker.names == {"pod-rank-0", "pod-rank-1", "ipv6-rank-1"}
        namespace.annotate("pod", {"inference.networking.k8s.io/active-ports": "8000"})
        await picker.becomes("10.0.0.1:8000", "[fd00::1]:8001")
