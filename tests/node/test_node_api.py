"""Test kubectl logs and exec, and a node whose API server goes away for a while."""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request

import pytest

from tests.live import PATIENCE_S, until
from tests.node.cluster import Cluster
from tests.node.manifests import pod, script

pytestmark = pytest.mark.slow


def test_exec_carries_streams_and_the_exit_code(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("box", script("exec sleep 600"), terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/box", namespace)
    prefix = ("exec", "-n", namespace, "box")
    assert cluster.kubectl(*prefix, "-i", "--", "tr", "a-z", "A-Z", stdin="abc\n") == "ABC\n"
    assert cluster.kubectl(*prefix, "--", "sh", "-c", "echo out; echo err >&2") == "out\n"
    with pytest.raises(AssertionError, match="err\ncommand terminated with exit code 7"):
        cluster.kubectl(*prefix, "--", "sh", "-c", "echo err >&2; exit 7")
    with pytest.raises(AssertionError, match="No such file or directory"):
        cluster.kubectl(*prefix, "--", "absent-command")
    large = cluster.kubectl(*prefix, "--", "head", "-c", "3000000", "/dev/zero")
    assert len(large) == 3000000


def test_exec_ends_with_its_client(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("box", script("exec sleep 600"), terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/box", namespace)

    def running() -> bool:
        return "sleep 777" in cluster.kubectl("exec", "-n", namespace, "box", "--", "ps", "axo", "args")

    client = cluster.start("kubectl", "exec", "-n", namespace, "box", "--", "sleep", "777")
    try:
        until(running)
    finally:
        client.kill()
        client.communicate()
    until(lambda: not running())


def test_kubectl_reads_parts_of_a_log(cluster: Cluster, namespace: str) -> None:
    talker = script("for i in 1 2 3; do echo line $i; done; printf unfinished; exec sleep 600 >/dev/null 2>&1")
    cluster.apply(pod("talker", talker, terminationGracePeriodSeconds=0), namespace=namespace)

    def logs(*flags: str) -> list[str]:
        return cluster.kubectl("logs", "-n", namespace, "talker", *flags).splitlines()

    cluster.wait_ready("pod/talker", namespace)
    until(lambda: logs() == ["line 1", "line 2", "line 3", "unfinished"])
    assert logs("--tail=2") == ["line 3", "unfinished"]
    assert logs("--limit-bytes=6") == ["line 1"]
    assert logs("--since=1h", "--tail=1") == ["unfinished"]
    assert logs("--since-time=2100-01-01T00:00:00Z") == []
    (stamped,) = logs("--timestamps", "--tail=1")
    assert stamped.startswith("20")
    assert stamped.endswith("Z unfinished")
    with pytest.raises(AssertionError, match="has no such log"):
        logs("--previous")


def test_the_node_admits_only_the_api_server(cluster: Cluster) -> None:
    node = cluster.plane.call("GET", "/api/v1/nodes/node-1")["status"]
    port = node["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    url = f"https://{cluster.subnet.gateway}:{port}/containerLogs/a/b/c"
    context = ssl.create_default_context(cafile=cluster.folder / "node.crt")
    with pytest.raises(OSError, match=r"CERTIFICATE_REQUIRED|closed connection|reset by peer"):
        urllib.request.urlopen(url, timeout=PATIENCE_S, context=context)
    context.load_cert_chain(cluster.folder / "api-server-client.crt", cluster.folder / "api-server-client.key")
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(url, timeout=PATIENCE_S, context=context)
    with answered.value:
        assert answered.value.code == 404


def test_pods_outlast_the_api_server(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("box", script("exec sleep 600"), terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/box", namespace)
    before = cluster.get("pod", "box", namespace)["status"]["containerStatuses"]
    cluster.plane.end("kube-apiserver")
    cluster.plane.start_api_server()
    cluster.apply(pod("later", script("exec sleep 600"), terminationGracePeriodSeconds=0), namespace=namespace)
    cluster.wait_ready("pod/later", namespace)
    assert cluster.get("pod", "box", namespace)["status"]["containerStatuses"] == before
    cluster.kubectl("delete", "pod", "box", "-n", namespace)
    node = json.loads(cluster.kubectl("get", "node", "node-1", "-o", "json"))
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"


def test_a_failed_tests_report_contains_the_pods_logs(cluster: Cluster) -> None:
    start = time.time()
    with contextlib.suppress(AssertionError), cluster.namespace() as name:
        cluster.apply(pod("talker", script("echo cause of it all; exec sleep 600")), namespace=name)
        cluster.wait_ready("pod/talker", name)
        until(lambda: "cause" in cluster.kubectl("logs", "-n", name, "talker"))
        raise AssertionError
    report = cluster.report(start)
    assert "cause of it all" in report
    assert "Started container server" in report
    assert "cause of it all" not in cluster.report(time.time())
