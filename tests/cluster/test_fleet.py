"""Test two pickers that share one trainer. Their training rows cross the network, so the connection uses TLS."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.installed import STANDALONE, Release, ask, installed
from tests.live import call, until
from tests.node.cluster import Cluster

pytestmark = pytest.mark.slow

TRAINER, SECRET = "my-slo-pool-training", "my-slo-pool-training-tls"
CA_FILE, URL = "/training-ca/ca.crt", f"{TRAINER}:8000/healthz"
STATUS_URL, TOKEN_SECRET = f"https://{TRAINER}:8000/data/status", "my-slo-pool-latency-token"
SIDECARS = "inferenceExtension.sidecars"
FLEET = (
    "--set", "inferenceExtension.replicas=2",
    *STANDALONE,
    "--set", f"{SIDECARS}.trainingServer.config.minSamplesForRetrain=20",
    "--set", f"{SIDECARS}.trainingServer.persistence.enabled=true",
    "--set", f"{SIDECARS}.trainingServer.persistence.accessModes={{ReadWriteMany}}",
    "--set", f"{SIDECARS}.predictionServers.replicas=1",
    "--set", f"{SIDECARS}.predictionServers.config.modelSyncIntervalSec=1",
)  # fmt: skip


def addresses(release: Release) -> list[str]:
    """Return the addresses of the pickers' pods."""
    return [str(pod["status"]["podIP"]) for pod in release.pods]


def generations(release: Release) -> list[int]:
    """Return the generation that each picker's prediction server serves, or 0 for none."""
    return [int(call(f"http://{address}:8001/status")[1].get("generation") or 0) for address in addresses(release)]


def in_picker(release: Release, *command: str, check: bool = True) -> str:
    """Run a command in one picker's container and return its output."""
    return release.kubectl("exec", release.pods[0]["metadata"]["name"], "-c", "epp", "--", *command, check=check)


def curl(release: Release, *words: str, check: bool = True) -> str:
    return in_picker(release, "curl", "-sS", *words, check=check)


def token(release: Release) -> tuple[str, str]:
    """Return curl's arguments that send the token which the chart has made."""
    data = release.cluster.get("secret", TOKEN_SECRET, release.namespace)["data"]
    return "-H", f"authorization: Bearer {base64.b64decode(data['token']).decode()}"


def samples(release: Release) -> int:
    """Return the trainer's number of samples. Ask by the Service's name, and verify the certificate by the CA."""
    status = json.loads(curl(release, "--cacert", CA_FILE, *token(release), STATUS_URL))
    return int(status["training_data"]["total_samples"] + status["test_data"]["total_samples"])


def serve(release: Release, address: str, count: int = 40) -> None:
    """Send requests through one picker and wait until the trainer has the observations."""
    pod = next(pod["metadata"]["name"] for pod in release.pods if pod["status"]["podIP"] == address)
    until(lambda: len(release.debug("endpoints", pod)["endpoints"]) == 2)
    before = samples(release)
    assert [ask(f"http://{address}:8081", number) for number in range(count)] == [200] * count
    # Each request gives at least two rows: one for TTFT, one for TPOT.
    until(lambda: samples(release) >= before + 2 * count)


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    with installed(cluster, *FLEET) as found:
        yield found


def secret(release: Release) -> dict[str, str]:
    """Return the data of the Secret that the chart makes."""
    found = release.cluster.get("secret", SECRET, release.namespace)
    assert found["type"] == "kubernetes.io/tls"
    data: dict[str, str] = found["data"]
    return data


def test_pickers_and_their_trainer_talk_over_tls(release: Release) -> None:
    for address in addresses(release):
        serve(release, address)
    until(lambda: min(generations(release)) > 0)
    assert "Succeeded" in release.helm("test")
    assert '"ok"' in curl(release, "--cacert", CA_FILE, f"https://{URL}")
    assert "certificate" in curl(release, f"https://{URL}", check=False)
    assert '"ok"' not in curl(release, f"http://{URL}", check=False)
    assert in_picker(release, "ls", Path(CA_FILE).parent.as_posix()).split() == ["ca.crt"]


def test_the_trainer_and_debug_pages_admit_only_authorised_callers(release: Release) -> None:
    code = ("-o", "/dev/null", "-w", "%{http_code}", "--cacert", CA_FILE)
    assert (
        curl(release, *code, STATUS_URL) == curl(release, *code, "-d", "{}", f"https://{TRAINER}:8000/flush") == "401"
    )
    assert curl(release, *code, *token(release), STATUS_URL) == "200"
    for address in addresses(release):
        assert call(f"http://{address}:9090/debug/endpoints")[0] == 403
        assert call(f"http://{address}:9090/metrics")[0] == 200


def test_a_new_trainer_keeps_the_old_certificate_and_token(release: Release) -> None:
    pods, before, sent = addresses(release), secret(release), token(release)
    release.upgrade(*FLEET, "--set", f"{SIDECARS}.trainingServer.podAnnotations.replaced=once")
    assert secret(release) == before
    assert token(release) == sent
    # The pickers keep running and still trust the certificate.
    assert addresses(release) == pods
    serve(release, pods[0])


def test_a_new_certificate_reaches_both_sides_by_their_mounts(release: Release) -> None:
    pods, before = addresses(release), secret(release)
    release.kubectl("delete", "secret", SECRET)
    release.upgrade(*FLEET)
    authority = secret(release)["ca.crt"]
    assert authority != before["ca.crt"]
    until(lambda: in_picker(release, "cat", CA_FILE) == base64.b64decode(authority).decode())
    until(lambda: '"ok"' in curl(release, "--cacert", CA_FILE, f"https://{URL}", check=False))
    assert addresses(release) == pods
    serve(release, pods[1])


def test_a_secret_without_a_ca_is_refused(release: Release) -> None:
    data = {name: text for name, text in secret(release).items() if name != "ca.crt"}
    bare = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bare"}, "type": "kubernetes.io/tls"}
    release.cluster.apply({**bare, "data": data}, namespace=release.namespace)
    with pytest.raises(AssertionError, match=r"existingSecret: the Secret bare has no ca\.crt"):
        release.upgrade(*FLEET, "--set", f"{SIDECARS}.trainingServer.tls.existingSecret=bare")
