"""Test a release over time: its pod dies, its values change, and it is uninstalled."""

import pytest

from tests.cluster.installed import CHART, Release, generation, installed, train
from tests.live import call, until
from tests.node.cluster import Cluster

pytestmark = pytest.mark.slow

PERSISTENT = "inferenceExtension.sidecars.trainingServer.persistence.enabled=true"
QUICK = ("--set", "inferenceExtension.sidecars.predictionServers.config.modelSyncIntervalSec=1")


def samples(release: Release) -> int:
    """Return the trainer's number of samples."""
    status = release.get(8000, "/data/status")
    return int(status["training_data"]["total_samples"] + status["test_data"]["total_samples"])


def test_with_persistence_a_new_pod_keeps_models_and_samples(cluster: Cluster) -> None:
    with installed(cluster, "--set", PERSISTENT, *QUICK) as release:
        before = train(release)
        known, old = samples(release), release.pod
        assert known > 0
        release.kubectl("delete", "pod", old)
        until(lambda: [pod["metadata"]["name"] for pod in release.pods] not in ([], [old]))
        cluster.wait_ready("deployment/my-slo-pool-epp", release.namespace, 120)
        assert generation(release, 8001) >= before
        assert samples(release) == known
        row = {"kv_cache_percentage": 0.3, "input_token_length": 100, "num_request_waiting": 1}
        status, answer = call(
            f"http://{release.address}:8001/v1/ttft", {**row, "num_request_running": 8, "prefix_cache_score": 0}
        )
        assert status == 200, answer
        release.helm("uninstall", "--wait")
        # Only the claim with the models and the samples outlives the release.
        until(lambda: not any("epp" in name for name in release.objects() if not name.startswith("persistent")))
        left = {name for name in release.objects() if "my-model-server" not in name}
        assert len(left) == 1
        assert left.pop().startswith("persistentvolumeclaim/")


def test_values_change_and_are_rolled_back(cluster: Cluster) -> None:
    with installed(cluster) as release:
        release.upgrade("--set", "inferenceExtension.sidecars.predictionServers.replicas=2")
        (pod,) = release.pods
        assert len(pod["spec"]["containers"]) == 4
        environment = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert environment["TRAINING_SERVER_URL"] == "http://localhost:8000"
        release.upgrade(
            "--set", "inferenceExtension.sidecars.trainingServer.enabled=false",
            "--set", "inferenceExtension.sidecars.predictionServers.enabled=false",
            "--set", "inferenceExtension.flags=null",
        )  # fmt: skip
        (pod,) = release.pods
        assert [one["name"] for one in pod["spec"]["containers"]] == ["epp"]
        release.helm("rollback", "1", "--wait", "--timeout", "120s")
        (pod,) = release.pods
        assert len(pod["spec"]["containers"]) == 5
        release.helm("uninstall", "--wait")
        until(lambda: not any("epp" in name for name in release.objects()))
        assert {name for name in release.objects() if "my-model-server" not in name} == set()


def test_a_plain_installation_routes_by_load_alone(cluster: Cluster) -> None:
    with cluster.namespace("plain") as namespace:
        release = Release(cluster, namespace, "plain")
        labels = "inferencePool.modelServers.matchLabels.app=my-model-server"
        release.helm("install", str(CHART), "--set", labels, "--wait", "--timeout", "120s")
        (pod,) = release.pods
        assert [one["name"] for one in pod["spec"]["containers"]] == ["epp"]
        ports = cluster.get("service", "plain-epp", namespace)["spec"]["ports"]
        assert [port["port"] for port in ports] == [9002, 9090]
        assert "Succeeded" in release.helm("test")
        release.helm("uninstall", "--wait")
