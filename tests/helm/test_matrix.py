"""For many combinations of values, every supported Kubernetes version accepts every rendered object."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.helm import schemas
from tests.helm.release import CHART, SLO_VALUES, HelmError, arguments, helm, render

SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
ALPHA = {"inferencePool.apiVersion": "inference.networking.x-k8s.io/v1alpha2"}
CLAIM = {"sidecars.trainingServer.persistence.enabled": True}
BUCKET = {"modelStore.s3.url": "s3://models/pool", "modelStore.s3.existingSecret": "keys"}
MONITORING = {
    f"monitoring.{one}.enabled": True for one in ("podMonitor", "serviceMonitor", "prometheusRule", "grafanaDashboard")
}
MATRIX: dict[str, dict[str, Any]] = {
    "plain": {},
    "v1alpha2": ALPHA,
    "sidecars": SIDECARS,
    "persistence": {**SIDECARS, **CLAIM},
    "bucket": {**SIDECARS, **BUCKET},
    "fleet": {**SIDECARS, **BUCKET, "inferenceExtension.replicas": 3, "networkPolicy.enabled": True, **MONITORING},
    "fleet on a claim": {
        **SIDECARS,
        **CLAIM,
        "sidecars.trainingServer.persistence.accessModes": ["ReadWriteMany"],
        "inferenceExtension.autoscaling.enabled": True,
    },
    "fleet in clear": {
        **SIDECARS,
        **BUCKET,
        "inferenceExtension.replicas": 2,
        "sidecars.trainingServer.tls.enabled": False,
        **MONITORING,
    },
    "fleet with a certificate": {
        **SIDECARS,
        **BUCKET,
        "sidecars.trainingServer.ownDeployment": True,
        "sidecars.trainingServer.tls.existingSecret": "certificate",
        "sidecars.token.existingSecret": "token",
        **MONITORING,
    },
    "embedded": {"inferenceExtension.latencyClient": "embedded", "sidecars.trainingServer.enabled": True},
    "election": {"inferenceExtension.enableLeaderElection": True, "inferenceExtension.replicas": 2, **MONITORING},
    "gke": {"provider.name": "gke"},
    "istio": {"provider.name": "istio", **ALPHA},
    "standalone": {"standalone.enabled": True, **SIDECARS, "networkPolicy.enabled": True, **MONITORING},
    "standalone with a pool": {"standalone.enabled": True, "inferencePool.create": True},
    "guarded": {
        "inferenceExtension.metricsEndpointAuth": True,
        "inferenceExtension.tls.existingSecret": "certificate",
        "inferenceExtension.flags": [{"name": "metrics-cert-dir", "value": "/certs"}],
        "monitoring.podMonitor.enabled": True,
        "monitoring.bearerTokenSecret.name": "token",
    },
    "grpc": {**SIDECARS, "sidecars.predictionServers.grpc": True, "sidecars.predictionServers.replicas": 12},
    "nothing extra": {
        "inferenceExtension.env": {},
        "inferenceExtension.flags": [],
        "inferenceExtension.pluginsCustomConfig": None,
        "inferenceExtension.resources": {},
    },
}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_version_accepts_every_object(values: dict[str, Any]) -> None:
    release = render(values)
    assert len(set(release.names)) == len(release.names)
    known = schemas.versions()
    assert len(known) >= 3
    assert {
        version: [found for one in release.objects for found in schemas.problems(version, one)] for version in known
    } == {version: [] for version in known}


def test_the_schemas_refuse_unknown_fields() -> None:
    release = render(files=[SLO_VALUES])
    deployment, pool = release.deployment, release.one("InferencePool")
    release.containers["epp"]["imagePulPolicy"] = "Always"
    pool["spec"]["selectors"] = {}
    for version in schemas.versions():
        assert "imagePulPolicy" in schemas.problems(version, deployment)[0]
        assert "selectors" in schemas.problems(version, pool)[0]


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_helm_lint_passes(values: dict[str, Any]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, *arguments(values))


def test_the_example_passes_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, *arguments(files=[SLO_VALUES]))


def test_the_package_contains_the_whole_chart(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path, "--version", "1.0.1-slo")
    (archive,) = tmp_path.glob("*.tgz")
    assert archive.name == "inferencepool-1.0.1-slo.tgz"
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    files = {f"inferencepool/{path.relative_to(CHART)}" for path in CHART.rglob("*") if path.is_file()}
    assert files - names <= {"inferencepool/.helmignore"}
    assert render(files=[SLO_VALUES], chart=archive).names == render(files=[SLO_VALUES]).names


def test_rendering_is_the_same_every_time() -> None:
    values = {**MATRIX["fleet with a certificate"], "inferenceExtension.env": {"B": 1, "A": 2}}
    given = arguments(values)
    assert helm("template", "pool", CHART, *given) == helm("template", "pool", CHART, *given)


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(HelmError, match="requires kubeVersion"):
        helm("template", "a", CHART, "--kube-version", "1.28.0", *arguments())
