"""All clients use TLS to reach a trainer in its own pod."""

import base64
import contextlib
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.helm.release import CHART, HelmError, Object, Release, arguments, env, helm, mounts, render

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
MONITORS = {"monitoring.podMonitor.enabled": True, "monitoring.serviceMonitor.enabled": True}
FLEET = {
    **SIDECARS,
    **MONITORS,
    "inferenceExtension.replicas": 2,
    "modelStore.s3.url": "s3://models",
    "sidecars.token.askedBy": "none",
}
TLS = "sidecars.trainingServer.tls"
SECRET = "my-slo-pool-training-tls"
CA_MOUNT = {"name": "training-ca", "mountPath": "/training-ca", "readOnly": True}


def trainer_pod(release: Release) -> Object:
    spec: Object = release.one("Deployment", "my-slo-pool-training")["spec"]["template"]["spec"]
    return spec


def secrets(pod: Object) -> dict[str, Object]:
    """Return the Secrets among a pod's volumes, by the volume's name."""
    return {one["name"]: one["secret"] for one in pod["volumes"] if "secret" in one}


def endpoints(release: Release) -> list[Object]:
    """Return the trainer's endpoints in the PodMonitor and the ServiceMonitor."""
    pods, services = release.one("PodMonitor")["spec"], release.one("ServiceMonitor")["spec"]
    return [one for one in pods["podMetricsEndpoints"] + services["endpoints"] if one["port"].endswith("training")]


def pem(release: Release) -> dict[str, bytes]:
    secret = release.one("Secret", SECRET)
    assert secret["type"] == "kubernetes.io/tls"
    return {name: base64.b64decode(text) for name, text in secret["data"].items()}


def shake_hands(folder: Path, files: dict[str, bytes], name: str) -> None:
    """Connect a client that expects `name` to a server with these files of a Secret.

    Raise ssl.SSLError if the client doesn't trust the server.
    """
    for file, text in files.items():
        (folder / file).write_bytes(text)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    asking = ssl.create_default_context(cafile=folder / "ca.crt")
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [asking.wrap_bio(down, up, server_hostname=name), serving.wrap_bio(up, down, server_side=True)]
    for side in sides * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert sides[0].version() in ("TLSv1.2", "TLSv1.3")


def test_the_certificate_has_the_services_names_and_the_cas_signature(tmp_path: Path) -> None:
    files = pem(render({**FLEET, "clusterDomain": "cluster.example"}))
    for domain in ("", ".inference", ".inference.svc", ".inference.svc.cluster.example"):
        shake_hands(tmp_path, files, f"my-slo-pool-training{domain}")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tmp_path, files, "my-slo-pool-epp")
    other = pem(render(FLEET))
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(tmp_path, {**files, "ca.crt": other["ca.crt"]}, "my-slo-pool-training")


def test_the_certificate_is_valid_for_years_and_signs_no_others() -> None:
    files = pem(render(FLEET))
    authority, own = (x509.load_pem_x509_certificate(files[name]) for name in ("ca.crt", "tls.crt"))
    later = datetime.now(UTC) + timedelta(days=9 * 365)
    assert min(authority.not_valid_after_utc, own.not_valid_after_utc) > later
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    # The CA's key is not in the Secret.
    assert authority.public_key() != own.public_key()


def test_the_trainer_serves_and_is_probed_over_tls() -> None:
    release = render(FLEET)
    pod = trainer_pod(release)
    (container,) = pod["containers"]
    assert env(container)["TRAINER_CERT_PATH"] == mounts(container)["tls"]["mountPath"] == "/certs"
    assert secrets(pod) == {"tls": {"secretName": SECRET}}
    probes = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]
    assert probes == [{"path": "/healthz", "port": "training", "scheme": "HTTPS"}] * 3


def test_pickers_have_the_ca_and_not_the_key() -> None:
    release = render(FLEET)
    picker = release.containers["epp"]
    assert env(picker)["LATENCY_CA_FILE"] == "/training-ca/ca.crt"
    assert env(picker)["TRAINING_SERVER_URL"] == "https://my-slo-pool-training:8000"
    assert mounts(picker)["training-ca"] == CA_MOUNT
    # The prediction servers don't connect to the trainer.
    assert "training-ca" not in mounts(release.containers["prediction-server-1"])
    ca_only = {"training-ca": {"secretName": SECRET, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    assert secrets(release.pod) == secrets(release.one("Pod")["spec"]) == ca_only
    assert "https" not in env(picker)["PREDICTION_SERVER_URL"]


def test_prometheus_and_helm_test_use_tls_too() -> None:
    release = render(FLEET)
    access = {
        "scheme": "https",
        "tlsConfig": {
            "ca": {"secret": {"name": SECRET, "key": "ca.crt"}},
            "serverName": "my-slo-pool-training",
        },
    }
    found = endpoints(release)
    assert [one["port"] for one in found] == ["training", "https-training"]
    assert all(access.items() <= one.items() for one in found)
    (port,) = release.one("Service", "my-slo-pool-training")["spec"]["ports"]
    assert port["name"] == "https-training"
    (asking,) = release.one("Pod")["spec"]["containers"]
    assert "--cacert /training-ca/ca.crt https://my-slo-pool-training:8000/healthz" in asking["args"][0]
    assert mounts(asking)["training-ca"] == CA_MOUNT


def test_an_existing_secret_is_used() -> None:
    release = render({**FLEET, f"{TLS}.existingSecret": "mine"})
    assert not release.has("Secret")
    assert secrets(trainer_pod(release))["tls"]["secretName"] == "mine"
    assert secrets(release.pod)["training-ca"]["secretName"] == "mine"
    assert {one["tlsConfig"]["ca"]["secret"]["name"] for one in endpoints(release)} == {"mine"}


@pytest.mark.parametrize(
    "values", [{**FLEET, f"{TLS}.enabled": False}, {**SIDECARS, **MONITORS}], ids=["turned off", "on localhost"]
)
def test_without_training_tls_nothing_refers_to_it(values: dict[str, Any]) -> None:
    text = helm("template", "my-slo-pool", CHART, *arguments(values))
    assert not re.findall("https://|HTTPS|scheme: https|https-training|LATENCY_CA_FILE|CERT_PATH|training-tls", text)


def test_the_picker_may_trust_other_cas() -> None:
    mine = {"inferenceExtension.env": {"LATENCY_CA_FILE": "/cas/all.crt", "PREDICTION_SERVER_URL": "https://a:8001"}}
    release = render({**FLEET, **mine})
    assert env(release.containers["epp"])["LATENCY_CA_FILE"] == "/cas/all.crt"
    flag = {"inferenceExtension.flags": [{"name": "latency-ca-file", "value": "/cas/all.crt"}]}
    assert "--latency-ca-file=/cas/all.crt" in render({**FLEET, **flag}).args


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PREDICTION_SERVER_URL": "http://a,https://b"}, "PREDICTION_SERVER_URL is https://"),
        ({"TRAINING_SERVER_URL": "http://my-slo-pool-training:8000"}, "TRAINING_SERVER_URL is http://"),
        ({"TRAINING_SERVER_URL": "http://my-slo-pool-training.inference.svc:8000"}, "leave the variable out"),
    ],
)
def test_contradictory_urls_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render({**FLEET, "inferenceExtension.env": variables})
    assert render({**FLEET, f"{TLS}.enabled": False, "inferenceExtension.env": variables})
