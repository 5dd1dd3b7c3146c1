"""Test a container's view: its files, user and environment, and the API server as its service account."""

import json
from pathlib import Path

import pytest

from tests.live import until
from tests.node.cluster import Cluster
from tests.node.manifests import SECURITY, claim, config_map, container, pod, script

pytestmark = pytest.mark.slow

SLEEP = "exec sleep 600"


def run(cluster: Cluster, namespace: str, name: str, command: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, name, "--", "sh", "-c", command).strip()


def fails(cluster: Cluster, namespace: str, name: str, command: str) -> str:
    with pytest.raises(AssertionError) as refused:
        run(cluster, namespace, name, command)
    return str(refused.value)


def test_a_container_has_its_own_user_files_processes_and_network(cluster: Cluster, namespace: str) -> None:
    user = {**SECURITY, "runAsUser": 1234, "runAsGroup": 2345}
    confined = {**script(SLEEP, volumeMounts=[{"name": "own", "mountPath": "/own"}]), "securityContext": user}
    fields = {
        "securityContext": {"fsGroup": 3456},
        "volumes": [{"name": "own", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    cluster.apply(pod("confined", confined, **fields), namespace=namespace)
    cluster.wait_ready("pod/confined", namespace)

    def ask(command: str) -> str:
        return run(cluster, namespace, "confined", command)

    assert ask("echo $(id -u) $(id -g) $(id -G)") == "1234 2345 2345 3456"
    for path in ("/x", "/tmp/x", "/usr/x", "/var/tmp/x"):  # noqa: S108
        assert "Read-only file system" in fails(cluster, namespace, "confined", f"touch {path}")
    assert ask("touch /own/x && stat -c '%u %g' /own/x") == "1234 3456"
    states = dict(line.split(":\t") for line in ask("grep -E '^(Cap|NoNew)' /proc/self/status").splitlines())
    assert {int(value, 16) for name, value in states.items() if name.startswith("Cap")} == {0}
    assert states["NoNewPrivs"] == "1"
    assert ask("cat /proc/1/cmdline | tr '\\0' ' '") == "sleep 600"
    assert ask("hostname") == "confined"
    address = cluster.get("pod", "confined", namespace)["status"]["podIP"]
    links = json.loads(ask("ip -json addr"))
    assert {info["local"] for link in links for info in link["addr_info"] if info["family"] == "inet"} == {
        "127.0.0.1",
        address,
    }
    assert cluster.folder.name not in ask("ls /tmp")


def test_a_writable_root_is_the_containers_own(cluster: Cluster, namespace: str) -> None:
    open_ = {**SECURITY, "readOnlyRootFilesystem": False}
    writer = {**script("echo here >/tmp/mine; exec sleep 600"), "securityContext": open_}
    other = {**script(SLEEP, name="other"), "securityContext": open_}
    cluster.apply(pod("two", writer, other, terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/two", namespace)
    # Both containers may see files under /tmp, because the project itself may lie there.
    until(lambda: "mine" in run(cluster, namespace, "two", "ls /tmp").split())
    listed = cluster.kubectl("exec", "-n", namespace, "two", "-c", "other", "--", "ls", "/tmp")  # noqa: S108
    assert "mine" not in listed.split()
    assert not Path("/tmp/mine").exists()  # noqa: S108


def test_the_environment_follows_the_pods_spec(cluster: Cluster, namespace: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"token": "hush"}}
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "one"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "one", "optional": True}}},
        {"name": "BOTH", "value": "$(NAME)-$(SET_two)-$$(ONE)-$(UNKNOWN)"},
    ]
    printer = script(
        "env; echo args $0 $*; exec sleep 600",
        env=env,
        envFrom=[{"prefix": "SET_", "configMapRef": {"name": "settings"}}],
    )
    printer["args"] = ["zero", "$(KEY)", "$$(KEY)"]
    manifests = (config_map("settings", one="1", two="2"), secret)
    cluster.apply(*manifests, pod("env", printer, terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/env", namespace)
    until(lambda: "args" in cluster.kubectl("logs", "-n", namespace, "env"))
    lines = cluster.kubectl("logs", "-n", namespace, "env").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found["NAME"] == "env"
    assert found["SPACE"] == namespace
    assert found["ADDRESS"] == cluster.get("pod", "env", namespace)["status"]["podIP"]
    assert found["KEY"] == "hush"
    assert (found["ONE"], found["SET_one"], found["SET_two"]) == ("1", "1", "2")
    assert "NONE" not in found
    assert found["BOTH"] == "env-2-$(ONE)-$(UNKNOWN)"
    assert "args zero hush $(KEY)" in lines


def test_a_changed_config_map_reaches_the_container_as_a_whole(cluster: Cluster, namespace: str) -> None:
    mounts = [
        {"name": "config", "mountPath": "/config", "readOnly": True},
        {"name": "config", "mountPath": "/etc/one.txt", "subPath": "sub/one", "readOnly": True},
    ]
    items = [{"key": "one", "path": "sub/one"}, {"key": "two", "path": "two", "mode": 0o400}]
    volumes = [{"name": "config", "configMap": {"name": "settings", "items": items}}]
    reader = script(SLEEP, volumeMounts=mounts)
    fields = {"volumes": volumes, "terminationGracePeriodSeconds": 0}
    cluster.apply(config_map("settings", one="1", two="2", three="3"), namespace=namespace)
    cluster.apply(pod("reader", reader, **fields), namespace=namespace)
    cluster.wait_ready("pod/reader", namespace)
    assert run(cluster, namespace, "reader", "ls /config; stat -Lc %a /config/two") == "sub\ntwo\n400"
    assert run(cluster, namespace, "reader", "cat /config/sub/one /etc/one.txt") == "11"
    cluster.apply(config_map("settings", one="new", two="2"), namespace=namespace)
    until(lambda: run(cluster, namespace, "reader", "cat /config/sub/one") == "new")
    # As with the kubelet, a subPath mount does not see changes.
    assert run(cluster, namespace, "reader", "cat /etc/one.txt") == "1"
    assert "Read-only" in fails(cluster, namespace, "reader", "touch /config/x")


def test_a_claim_outlives_its_pod(cluster: Cluster, namespace: str) -> None:
    mounts = [{"name": "store", "mountPath": "/models"}]
    fields = {
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "models"}}],
        "securityContext": {"fsGroup": 65532},
        "terminationGracePeriodSeconds": 0,
    }
    cluster.apply(claim("models"), pod("first", script(SLEEP, volumeMounts=mounts), **fields), namespace=namespace)
    cluster.wait_ready("pod/first", namespace)
    run(cluster, namespace, "first", "echo kept >/models/x")
    cluster.kubectl("delete", "pod", "first", "-n", namespace)
    cluster.apply(pod("second", script(SLEEP, volumeMounts=mounts), **fields), namespace=namespace)
    cluster.wait_ready("pod/second", namespace)
    assert run(cluster, namespace, "second", "cat /models/x") == "kept"
    volume = cluster.get("pvc", "models", namespace)["spec"]["volumeName"]
    folder = Path(cluster.get("pv", volume)["spec"]["hostPath"]["path"])
    assert (folder / "x").read_text() == "kept\n"
    cluster.kubectl("delete", "pod/second", "pvc/models", "-n", namespace)
    until(lambda: not cluster.get("pv", volume) and not folder.exists())


def test_a_retained_volume_stays(cluster: Cluster, namespace: str) -> None:
    cluster.apply(claim("models", "retained"), namespace=namespace)
    until(lambda: cluster.get("pvc", "models", namespace)["status"].get("phase") == "Bound")
    volume = cluster.get("pvc", "models", namespace)["spec"]["volumeName"]
    cluster.kubectl("delete", "pvc/models", "-n", namespace)
    until(lambda: cluster.get("pv", volume)["status"]["phase"] == "Released")
    assert Path(cluster.get("pv", volume)["spec"]["hostPath"]["path"]).is_dir()
    cluster.kubectl("delete", "pv", volume)


ASK = """
import asyncio
from epp.kubernetes.access import connect
from epp.kubernetes.client import Selection
from epp.kubernetes.exceptions import ApiError
from epp.kubernetes.objects import PODS

async def main():
    async with connect() as client:
        try:
            print(sorted((await client.list(PODS, Selection(client.namespace))).items), flush=True)
        except ApiError as error:
            print(error, flush=True)

asyncio.run(main())
"""


def test_a_pod_talks_to_the_api_server_with_its_own_rights(cluster: Cluster, namespace: str) -> None:
    asker = container("busybox", command=["python", "-c", ASK])
    fields = {"restartPolicy": "Never", "serviceAccountName": "asker"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "asker"}}
    cluster.apply(account, pod("refused", asker, **fields), namespace=namespace)
    until(lambda: cluster.get("pod", "refused", namespace)["status"]["phase"] == "Succeeded")
    said = cluster.kubectl("logs", "-n", namespace, "refused")
    assert f'"system:serviceaccount:{namespace}:asker" cannot list resource "pods"' in said
    cluster.kubectl("create", "role", "reader", "--verb=list", "--resource=pods", "-n", namespace)
    subject = f"--serviceaccount={namespace}:asker"
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", subject, "-n", namespace)
    cluster.apply(pod("allowed", asker, **fields), namespace=namespace)
    until(lambda: cluster.get("pod", "allowed", namespace)["status"]["phase"] == "Succeeded")
    assert cluster.kubectl("logs", "-n", namespace, "allowed").strip() == "['allowed', 'refused']"
