"""Test that pods start, are probed, restart, are replaced and end as on a real node."""

import json
from typing import Any

import pytest

from tests.live import PATIENCE_S, call, until
from tests.node.cluster import Cluster
from tests.node.manifests import SECURITY, container, deployment, pod, script, service

pytestmark = pytest.mark.slow

READINESS = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1}
PORTS = [{"containerPort": 8000, "name": "http"}]


def simulator(**fields: Any) -> dict[str, Any]:
    return container("example.com/simulator:v1", "--port", "8000", **{"ports": PORTS, **fields})


def status(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Return the status of a pod's only container."""
    found: dict[str, Any] = cluster.get("pod", name, namespace)["status"]["containerStatuses"][0]
    return found


def test_a_deployment_serves_at_its_pods_addresses(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("sim", simulator(readinessProbe=READINESS), replicas=2), namespace=namespace)
    cluster.wait_ready("deployment/sim", namespace)
    pods = cluster.pods(namespace, "app=sim")
    addresses = {found["status"]["podIP"] for found in pods}
    assert len(addresses) == 2
    for address in addresses:
        assert call(f"http://{address}:8000/health")[0] == 200
    assert all(found["status"]["phase"] == "Running" for found in pods)
    assert "starting with Config" in cluster.kubectl("logs", "-n", namespace, pods[0]["metadata"]["name"])


def test_a_killed_container_is_restarted(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("sim", simulator(readinessProbe=READINESS)), namespace=namespace)
    cluster.wait_ready("pod/sim", namespace)
    cluster.kubectl("exec", "-n", namespace, "sim", "--", "python", "-c", "import os; os.kill(1, 15)")
    until(lambda: status(cluster, namespace, "sim")["restartCount"] == 1)
    cluster.wait_ready("pod/sim", namespace)
    assert "terminated" in status(cluster, namespace, "sim")["lastState"]
    previous = cluster.kubectl("logs", "-n", namespace, "sim", "--previous")
    assert "starting with Config" in previous


def test_a_failing_liveness_probe_restarts(cluster: Cluster, namespace: str) -> None:
    probe = {"exec": {"command": ["test", "-e", "/data/well"]}, "periodSeconds": 1, "failureThreshold": 1}
    patient = script(
        "touch /data/well; exec sleep 600",
        livenessProbe=probe,
        startupProbe=probe,
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    fields = {"volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 0}
    cluster.apply(pod("patient", patient, **fields), namespace=namespace)
    cluster.wait_ready("pod/patient", namespace)
    cluster.kubectl("exec", "-n", namespace, "patient", "--", "rm", "/data/well")
    until(lambda: status(cluster, namespace, "patient")["restartCount"] == 1)
    said = cluster.kubectl("describe", "pod", "patient", "-n", namespace)
    assert "Liveness probe failed" in said
    assert "failed liveness probe, will be restarted" in said


def test_an_unready_pod_gets_no_requests(cluster: Cluster, namespace: str) -> None:
    probe = {**READINESS, "httpGet": {"path": "/absent", "port": "http"}}
    cluster.apply(
        pod("sim", simulator(readinessProbe=probe)), service("sim"), pod("other", simulator()), namespace=namespace
    )
    cluster.wait_ready("pod/other", namespace)
    until(lambda: "statuscode: 404" in cluster.kubectl("describe", "pod", "sim", "-n", namespace))
    (endpoints,) = json.loads(cluster.kubectl("get", "endpointslices", "-n", namespace, "-o", "json"))["items"]
    assert [endpoint["conditions"]["ready"] for endpoint in endpoints["endpoints"]] == [False]


def test_a_rolling_update_replaces_pods(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("sim", simulator(readinessProbe=READINESS)), namespace=namespace)
    cluster.wait_ready("deployment/sim", namespace)
    (old,) = cluster.pods(namespace, "app=sim")
    changed = simulator(readinessProbe=READINESS, env=[{"name": "SIMULATOR_MODEL", "value": "other-$(HOSTNAME)"}])
    cluster.apply(deployment("sim", changed), namespace=namespace)
    cluster.wait_ready("deployment/sim", namespace)
    until(lambda: not cluster.get("pod", old["metadata"]["name"], namespace))
    (new,) = cluster.pods(namespace, "app=sim")
    models = call(f"http://{new['status']['podIP']}:8000/v1/models")[1]
    # Only variables from the container's own `env` list are expanded.
    assert models["data"][0]["id"] == "other-$(HOSTNAME)"


def test_pods_end_gracefully(cluster: Cluster, namespace: str) -> None:
    tidy = script(
        "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1"]}}},
    )
    deaf = script("trap '' TERM; echo up; while :; do sleep 0.1; done", name="deaf")
    cluster.apply(pod("two", tidy, deaf, terminationGracePeriodSeconds=2), namespace=namespace)
    cluster.wait_ready("pod/two", namespace)
    uid = cluster.get("pod", "two", namespace)["metadata"]["uid"]
    until(lambda: "up" in cluster.kubectl("logs", "-n", namespace, "two", "-c", "server"))
    following = cluster.start("kubectl", "logs", "-n", namespace, "two", "-c", "server", "-f")
    cluster.kubectl("delete", "pod", "two", "-n", namespace)
    assert not cluster.get("pod", "two", namespace)
    assert following.communicate(timeout=PATIENCE_S)[0].split() == ["up", "hook", "told"]
    assert not cluster.processes(uid)


def test_pods_that_are_not_restarted_succeed_or_fail(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        pod("good", script("exit 0"), restartPolicy="Never"),
        pod("bad", script("exit 3"), restartPolicy="Never"),
        pod("third", script("echo ran"), initContainers=[script("exit 4", name="first")], restartPolicy="Never"),
        namespace=namespace,
    )
    phases = {"good": "Succeeded", "bad": "Failed", "third": "Failed"}
    until(lambda: {name: cluster.get("pod", name, namespace)["status"]["phase"] for name in phases} == phases)
    assert status(cluster, namespace, "bad")["state"]["terminated"]["exitCode"] == 3
    assert "waiting" in status(cluster, namespace, "third")["state"]


def test_init_containers_run_in_their_order_before_the_rest(cluster: Cluster, namespace: str) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    first = script("echo 1 >/data/x", name="first", volumeMounts=mounts)
    second = script("echo 2 >>/data/x", name="second", volumeMounts=mounts)
    main = script("cat /data/x; exec sleep 600", volumeMounts=mounts)
    fields = {"initContainers": [first, second], "volumes": [{"name": "data", "emptyDir": {"medium": "Memory"}}]}
    cluster.apply(pod("steps", main, terminationGracePeriodSeconds=0, **fields), namespace=namespace)
    cluster.wait_ready("pod/steps", namespace)
    until(lambda: cluster.kubectl("logs", "-n", namespace, "steps", "-c", "server").split() == ["1", "2"])


def test_a_pod_that_cannot_start_says_why(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        pod("unknown", container("example.com/absent:v2")),
        pod("wrong", container("busybox", command=["absent-command"])),
        pod("lost", script("true", envFrom=[{"configMapRef": {"name": "absent"}}])),
        namespace=namespace,
    )
    said = {
        "unknown": ("ImagePullBackOff", 'no "absent" among the images'),
        "wrong": ("CrashLoopBackOff", "failed to start container: [Errno 2] No such file or directory"),
        "lost": ("CreateContainerConfigError", 'configmap "absent" not found'),
    }
    for name, words in said.items():
        for word in words:
            until(lambda name=name, word=word: word in cluster.kubectl("describe", "pod", name, "-n", namespace))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runAsNonRoot": False}, "runAsNonRoot != true"),
        ({"capabilities": {}}, "unrestricted capabilities"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation != false"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
    ],
)
def test_the_restricted_standard_is_enforced(cluster: Cluster, namespace: str, change: Any, said: str) -> None:
    loose = {**simulator(), "securityContext": {**SECURITY, **change}}
    with pytest.raises(AssertionError, match="violates PodSecurity") as refused:
        cluster.apply(pod("loose", loose), namespace=namespace)
    assert said in str(refused.value)


def between_runs(cluster: Cluster, namespace: str, name: str, *flags: str) -> str:
    """Return a log that was read entirely while the pod waited between the same two runs."""
    said: list[str] = []

    def read_while_waiting() -> bool:
        before = status(cluster, namespace, name)
        if before["state"].get("waiting", {}).get("reason") != "CrashLoopBackOff":
            return False
        said.append(cluster.kubectl("logs", "-n", namespace, name, *flags, check=False))
        return status(cluster, namespace, name) == before

    until(read_while_waiting)
    return said[-1]


def test_between_two_runs_logs_show_the_last_run(cluster: Cluster, namespace: str) -> None:
    failing = script("echo run; exit 5", readinessProbe={"exec": {"command": ["true"]}})
    cluster.apply(pod("failing", failing), namespace=namespace)
    for flags in ((), ("--previous",)):
        assert between_runs(cluster, namespace, "failing", *flags) == "run\n"
    assert status(cluster, namespace, "failing")["lastState"]["terminated"]["exitCode"] == 5


def test_a_sidecar_starts_before_the_main_container_and_keeps_running(cluster: Cluster, namespace: str) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    beside = script(
        "sleep 0.3; touch /data/up; exec sleep 600",
        name="beside",
        restartPolicy="Always",
        startupProbe={"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1},
        volumeMounts=mounts,
    )
    main = script("test -e /data/up && echo in order; exec sleep 600", volumeMounts=mounts)
    fields = {"initContainers": [beside], "volumes": [{"name": "data", "emptyDir": {}}]}
    cluster.apply(pod("pair", main, terminationGracePeriodSeconds=0, **fields), namespace=namespace)
    cluster.wait_ready("pod/pair", namespace)
    until(lambda: cluster.kubectl("logs", "-n", namespace, "pair", "-c", "server") == "in order\n")
