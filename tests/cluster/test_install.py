"""Run the documented commands, as printed, against a release whose pod really runs."""

from collections.abc import Iterator

import pytest

from tests.cluster.installed import Release, installed, train
from tests.live import until
from tests.node.cluster import Cluster

pytestmark = pytest.mark.slow

CONTAINERS = ["epp", "training-server", "prediction-server-1", "prediction-server-2", "prediction-server-3"]
QUICK = ("--set", "inferenceExtension.sidecars.predictionServers.config.modelSyncIntervalSec=1")
ROW = '{"kv_cache_percentage": 0.3, "input_token_length": 100, "num_request_waiting": 1, "num_request_running": 8'


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    with installed(
        cluster, "--set", "inferenceExtension.sidecars.predictionServers.config.modelSyncIntervalSec=1"
    ) as found:
        yield found


def test_one_pod_of_five_containers_runs(release: Release) -> None:
    (pod,) = release.pods
    statuses = {one["name"]: one for one in pod["status"]["containerStatuses"]}
    assert [one["name"] for one in pod["spec"]["containers"]] == CONTAINERS
    assert all(one["ready"] and one["restartCount"] == 0 for one in statuses.values())
    assert "5/5" in release.kubectl("get", "pods")


def test_each_container_writes_a_log(release: Release) -> None:
    assert "ready: ext_proc on 9002" in release.kubectl("logs", release.pod, "-c", "epp")
    assert "headroom.trainer" in release.kubectl("logs", release.pod, "-c", "training-server")
    assert release.kubectl("logs", release.pod, "-c", "prediction-server-1")


def test_the_service_has_a_port_for_each_server(release: Release) -> None:
    ports = release.cluster.get("service", "my-slo-pool-epp", release.namespace)["spec"]["ports"]
    assert [port["port"] for port in ports] == [9002, 9090, 8000, 8001, 8002, 8003]


def test_helm_test_succeeds(release: Release) -> None:
    assert "Succeeded" in release.helm("test")


def test_troubleshooting_commands_answer(release: Release) -> None:
    described = release.kubectl("describe", "pod", release.pod)
    assert all(name in described for name in CONTAINERS)
    assert "retraining" in release.kubectl("get", "configmap", "latency-predictor-config", "-o", "yaml").lower()
    words = ("-c", "prediction-server-1", "--", "curl", "-sS", "http://localhost:8000/healthz")
    assert '"ok"' in release.kubectl("exec", release.pod, *words)


def test_the_picker_finds_the_model_servers_with_its_pods_rights(release: Release) -> None:
    until(lambda: len(release.debug("endpoints")["endpoints"]) == 2)
    pods = release.cluster.pods(release.namespace, "app=my-model-server")
    known = {endpoint["address"] for endpoint in release.debug("endpoints")["endpoints"]}
    assert known == {f"{pod['status']['podIP']}:8000" for pod in pods}


def test_prediction_servers_answer_once_there_is_a_model(release: Release) -> None:
    train(release)
    for name, more in (("ttft", ', "prefix_cache_score": 0}'), ("tpot", ', "num_tokens_generated": 0}')):
        words = ("curl", "-sS", f"http://localhost:8001/v1/{name}", "-d", ROW + more)
        answer = release.kubectl("exec", release.pod, "-c", "prediction-server-1", "--", *words)
        assert f'"{name}_ms":' in answer
