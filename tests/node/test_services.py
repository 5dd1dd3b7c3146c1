"""Test Services by cluster IP and by name, from within pods and from the machine."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live import call, until
from tests.node.cluster import Cluster
from tests.node.manifests import container, deployment, pod, script, service
from tests.node.services import answer

LABELS = st.lists(st.from_regex(r"\A[a-z]([a-z0-9-]{0,20}[a-z0-9])?\Z"), min_size=1, max_size=6)


@pytest.mark.slow
def test_a_service_leads_to_its_ready_pods(cluster: Cluster, namespace: str) -> None:
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1}
    server = container(
        "simulator",
        "--port",
        "8000",
        env=[
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "SIMULATOR_MODEL", "value": "$(POD)"},
        ],
        readinessProbe=probe,
    )
    headless = {**service("all", clusterIP="None"), "metadata": {"name": "all"}}
    headless["spec"]["selector"] = {"app": "sim"}
    client = script("exec sleep 600")
    cluster.apply(
        deployment("sim", server, replicas=2),
        service("sim"),
        headless,
        pod("client", client, terminationGracePeriodSeconds=0),
        namespace=namespace,
    )
    cluster.wait_ready("deployment/sim", namespace)
    cluster.wait_ready("pod/client", namespace)
    names = {found["metadata"]["name"] for found in cluster.pods(namespace, "app=sim")}
    address = cluster.get("service", "sim", namespace)["spec"]["clusterIP"]

    def asked() -> str:
        return str(call(f"http://{address}/v1/models")[1]["data"][0]["id"])

    until(lambda: {asked() for _ in range(2)} == names)
    for name in ("sim", f"sim.{namespace}", f"sim.{namespace}.svc.cluster.local"):
        text = f"import urllib.request; print(urllib.request.urlopen('http://{name}/v1/models').read())"
        said = inside(cluster, namespace, text)
        assert any(found in said for found in names)
    lookup = "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('all', 8000)}))"
    addresses = {found["status"]["podIP"] for found in cluster.pods(namespace, "app=sim")}
    assert set(inside(cluster, namespace, lookup).split()) == addresses
    cluster.kubectl("scale", "deployment/sim", "--replicas=0", "-n", namespace)
    until(lambda: refuses(address, 80))
    with pytest.raises(AssertionError, match="Connection refused"):
        inside(cluster, namespace, f"import socket; socket.create_connection(('{address}', 80))")
    unknown = "import socket; socket.getaddrinfo('absent', 80)"
    with pytest.raises(AssertionError, match="Name or service not known"):
        inside(cluster, namespace, unknown)


def inside(cluster: Cluster, namespace: str, text: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, "client", "--", "python", "-c", text)


def refuses(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == errno.ECONNREFUSED


@given(LABELS, st.integers(0, 0xFFFF), st.lists(st.ip_addresses(v=4).map(str), max_size=4), st.sampled_from([1, 28]))
def test_the_dns_server_answers_with_a_services_addresses(
    labels: list[str], identity: int, addresses: list[str], kind: int
) -> None:
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    question = name + struct.pack(">2H", kind, 1)
    query = struct.pack(">6H", identity, 0x0100, 1, 0, 0, 0) + question
    dns_answer = answer(query, {".".join(labels): addresses}.get)
    expected = addresses if kind == 1 else []
    assert struct.unpack_from(">6H", dns_answer) == (identity, 0x8500, 1, len(expected), 0, 0)
    assert dns_answer[12 : 12 + len(question)] == question
    records = [dns_answer[i : i + 16] for i in range(12 + len(question), len(dns_answer), 16)]
    assert [socket.inet_ntoa(record[12:]) for record in records] == expected
    assert struct.unpack_from(">6H", answer(query, lambda _: None))[1] & 0xF == 3


@given(st.binary(max_size=40))
def test_malformed_queries_raise_or_are_echoed(data: bytes) -> None:
    try:
        dns_answer = answer(data, lambda _: ["10.0.0.1"])
    except (ValueError, IndexError, struct.error):
        return
    assert dns_answer[:2] == data[:2]
