"""Test several pickers: one leads, the others stand by. They have the rights that the chart gives, and no more."""

import json

import pytest

from tests.cluster.installed import CHART, Release, installed
from tests.live import until
from tests.node.cluster import Cluster

pytestmark = pytest.mark.slow

STABLE, EXPERIMENTAL = "inference.networking.k8s.io", "inference.networking.x-k8s.io"
ELECTED = (
    "--set", "inferenceExtension.sidecars.trainingServer.enabled=false",
    "--set", "inferenceExtension.sidecars.predictionServers.enabled=false",
    "--set", "inferenceExtension.flags=null",
    "--set", "inferenceExtension.enableLeaderElection=true",
    "--set", "inferenceExtension.replicas=2",
)  # fmt: skip


def ready_pods(release: Release) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in release.pods
        if all(one["ready"] for one in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]


def test_another_replica_leads_after_the_leader(cluster: Cluster) -> None:
    with installed(cluster, *ELECTED, wait=()) as release:
        until(lambda: len(release.pods) == 2 and len(ready_pods(release)) == 1)
        for _ in range(2):
            (leader,) = ready_pods(release)
            release.kubectl("delete", "pod", leader)
            until(lambda leader=leader: ready_pods(release) not in ([], [leader]))  # type: ignore[misc]
            until(lambda: len(release.pods) == 2)
        (lease,) = json.loads(release.kubectl("get", "leases", "-o", "json"))["items"]
        assert lease["spec"]["holderIdentity"] in ready_pods(release)


def test_the_picker_may_do_what_it_needs_and_no_more(cluster: Cluster) -> None:
    with cluster.namespace("rights") as namespace:
        release = Release(cluster, namespace, "pool")
        release.helm("install", str(CHART), "--set", "inferencePool.modelServers.matchLabels.app=a")
        who = f"--as=system:serviceaccount:{namespace}:pool-epp"

        def may(verb: str, what: str, *more: str) -> bool:
            words = ("auth", "can-i", verb, what, who, "-n", namespace, *more)
            return cluster.kubectl(*words, check=False).strip().endswith("yes")

        read = ("pods", f"inferencepools.{STABLE}", f"inferenceobjectives.{EXPERIMENTAL}")
        needed = [(verb, what) for verb in ("list", "watch") for what in read]
        # Roles take effect a moment after their creation.
        until(lambda: [one for one in needed if not may(*one)] == [])
        changed = [(verb, what) for verb in ("get", "create", "delete", "patch", "update") for what in read]
        others = [("get", what) for what in ("secrets", "configmaps", "nodes", "deployments.apps")]
        assert [one for one in [*changed, *others] if may(*one)] == []
        assert not may("list", "pods", "-A")
        assert not may("create", "leases.coordination.k8s.io")
        release.helm("uninstall")
