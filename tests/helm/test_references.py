"""For random combinations of values, every name in a release refers to an object of the release."""

from collections.abc import Iterator
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helm import schemas
from tests.helm.release import HelmError, Object, Release, render

PERSISTENCE = "sidecars.trainingServer.persistence"
SWITCHES = (
    "sidecars.trainingServer.enabled",
    "sidecars.trainingServer.ownDeployment",
    "sidecars.trainingServer.tls.enabled",
    f"{PERSISTENCE}.enabled",
    "sidecars.predictionServers.enabled",
    "sidecars.predictionServers.grpc",
    "standalone.enabled",
    "inferencePool.create",
    "inferenceExtension.enableLeaderElection",
    "inferenceExtension.autoscaling.enabled",
    "inferenceExtension.metricsEndpointAuth",
    "networkPolicy.enabled",
    "monitoring.podMonitor.enabled",
    "monitoring.serviceMonitor.enabled",
)
VALUES = st.fixed_dictionaries(
    {
        **{switch: st.booleans() for switch in SWITCHES},
        "inferenceExtension.replicas": st.integers(1, 3),
        "inferenceExtension.latencyClient": st.sampled_from(["remote", "embedded"]),
        "inferencePool.apiVersion": st.sampled_from(
            ["inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"]
        ),
        "sidecars.predictionServers.replicas": st.integers(1, 4),
        f"{PERSISTENCE}.accessModes": st.sampled_from([["ReadWriteOnce"], ["ReadWriteMany"]]),
        "modelStore.s3.url": st.sampled_from(["", "s3://models/pool"]),
        "provider.name": st.sampled_from(["none", "gke", "istio"]),
    }
)
REASONS = ("exclude each other", "a model store that all pods share", "can't share a claim of one node")


def dangling(release: Release) -> Iterator[str]:
    """Yield names that refer to no object of the release."""
    names = set(release.names)
    for pod in release.pods:
        account = pod.get("serviceAccountName")
        if account and f"ServiceAccount {account}" not in names:
            yield f"service account {account}"
        yield from _volumes(pod, names)
        for container in pod["containers"]:
            yield from _of_container(container, names, {one["name"] for one in pod["volumes"]})
    yield from _ports(release)


def _volumes(pod: Object, names: set[str]) -> Iterator[str]:
    for one in pod["volumes"]:
        wanted = {
            f"ConfigMap {one.get('configMap', {}).get('name')}": "configMap" in one,
            f"PersistentVolumeClaim {one.get('persistentVolumeClaim', {}).get('claimName')}": "persistentVolumeClaim"
            in one,
            f"Secret {one.get('secret', {}).get('secretName')}": "secret" in one,
        }
        yield from (name for name, is_wanted in wanted.items() if is_wanted and name not in names)


def _of_container(container: Object, names: set[str], volumes: set[str]) -> Iterator[str]:
    own = {port["name"] for port in container.get("ports", ())}
    for source in container.get("envFrom", ()):
        if f"ConfigMap {source['configMapRef']['name']}" not in names:
            yield str(source)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if port is not None and port not in own:
            yield f"{probe} of {container['name']}"
    yield from (one["name"] for one in container["volumeMounts"] if one["name"] not in volumes)


def _ports(release: Release) -> Iterator[str]:
    """Yield ports of Services, policies and monitors that the pods they select don't have."""
    pods = {
        one["spec"]["template"]["metadata"]["labels"]["inferencepool"]: {
            port["name"] for container in one["spec"]["template"]["spec"]["containers"] for port in container["ports"]
        }
        for one in release.find("Deployment")
    }
    for service in release.find("Service"):
        selected = service["spec"]["selector"].get("inferencepool")
        if selected is not None:
            yield from (str(port) for port in service["spec"]["ports"] if port["targetPort"] not in pods[selected])
    for policy in release.find("NetworkPolicy"):
        selected = policy["spec"]["podSelector"]["matchLabels"]["inferencepool"]
        asked = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        yield from asked - pods[selected]
    for monitor in release.find("PodMonitor"):
        asked = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
        yield from asked - set().union(*pods.values())


@settings(max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(VALUES)
def test_a_release_is_whole_or_refused_for_a_reason(values: dict[str, Any]) -> None:
    try:
        release = render(values)
    except HelmError as error:
        if any(reason in str(error) for reason in REASONS):
            return
        raise
    assert list(dangling(release)) == []
    assert len(set(release.names)) == len(release.names)
    newest = schemas.versions()[-1]
    assert [problem for one in release.objects for problem in schemas.problems(newest, one)] == []
