"""The pool, and the picker's place in the cluster: rights, election and providers."""

from typing import Any

import pytest
import yaml

from tests.helm.release import CHART, HelmError, Object, Release, render
from tests.kubernetes.namespace import documented_manifests

ALPHA = {"inferencePool.apiVersion": "inference.networking.x-k8s.io/v1alpha2"}
ELECTION = {"inferenceExtension.enableLeaderElection": True, "inferenceExtension.replicas": 2}


def rights(*rules: Object) -> set[tuple[str, str, str]]:
    """Return the rules' rights as (group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def granted(release: Release, kind: str = "Role") -> set[tuple[str, str, str]]:
    return rights(*(rule for role in release.find(kind) for rule in role["rules"]))


def documented(kind: str) -> set[tuple[str, str, str]]:
    manifests = [one for one in documented_manifests() if one["kind"] == kind]
    return rights(*(rule for one in manifests for rule in one["rules"] if "resources" in rule))


def test_a_pool_of_v1() -> None:
    release = render({"inferencePool.targetPorts": [{"number": 8000}, {"number": 8001}]})
    pool = release.one("InferencePool", "my-slo-pool")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    assert pool["spec"] == {
        "targetPorts": [{"number": 8000}, {"number": 8001}],
        "selector": {"matchLabels": {"app": "my-model-server"}},
        "endpointPickerRef": {"name": "my-slo-pool-epp", "port": {"number": 9002}, "failureMode": "FailClose"},
    }
    assert "--pool-group=inference.networking.k8s.io" in release.args


def test_a_pool_of_v1alpha2_and_a_picker_that_follows_it() -> None:
    release = render({**ALPHA, "inferencePool.targetPortNumber": 8100, "inferenceExtension.failureMode": "FailOpen"})
    pool = release.one("InferencePool", "my-slo-pool")
    assert pool["apiVersion"] == "inference.networking.x-k8s.io/v1alpha2"
    assert pool["spec"] == {
        "targetPortNumber": 8100,
        "selector": {"app": "my-model-server"},
        "extensionRef": {"name": "my-slo-pool-epp", "portNumber": 9002, "failureMode": "FailOpen"},
    }
    assert "--pool-group=inference.networking.x-k8s.io" in release.args


def test_the_failure_mode_also_applies_to_v1() -> None:
    pool = render({"inferenceExtension.failureMode": "FailOpen"}).one("InferencePool")
    assert pool["spec"]["endpointPickerRef"]["failureMode"] == "FailOpen"


@pytest.mark.parametrize("version", [{}, ALPHA], ids=["v1", "v1alpha2"])
def test_a_pool_without_labels_is_refused(version: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=r"inferencePool\.modelServers\.matchLabels is required"):
        render(version, labels=False)


def test_without_a_pool_the_picker_selects_pods_and_reads_no_custom_resource() -> None:
    release = render(
        {"inferencePool.create": False, "inferencePool.modelServers.matchLabels": {"app": "a", "role": "b"}}
    )
    assert not release.has("InferencePool")
    assert {"--endpoint-selector=app=a,role=b", "--endpoint-target-ports=8000"} < set(release.args)
    assert not any(arg.startswith("--pool-group") for arg in release.args)
    assert granted(release) == {("", "pods", "list"), ("", "pods", "watch")}


@pytest.mark.parametrize(("release", "expected"), [("a" * 53, "a" * 40), (f"{'a' * 39}-b", "a" * 39)])
def test_long_names_are_cut(release: str, expected: str) -> None:
    rendered = render(name=release)
    assert rendered.deployment["metadata"]["name"] == f"{expected}-epp"
    assert rendered.one("InferencePool")["metadata"]["name"] == release


def test_names_and_labels_are_the_documented_ones() -> None:
    release = render()
    labels = release.deployment["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "my-slo-pool-epp"
    assert labels["app.kubernetes.io/version"] == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    selector = {"inferencepool": "my-slo-pool-epp"}
    assert release.deployment["spec"]["selector"]["matchLabels"] == selector
    assert release.one("Service", "my-slo-pool-epp")["spec"]["selector"] == selector
    for one in release.objects:
        assert one["metadata"].get("namespace", "inference") == "inference"


def test_rights_are_the_documented_ones_and_no_more() -> None:
    of_pool = {right for right in documented("Role") if right[1] != "leases"}
    v1, alpha = granted(render()), granted(render(ALPHA))
    # Each picker watches only pools of its own API group.
    assert v1 | alpha == of_pool
    assert of_pool - v1 == {("inference.networking.x-k8s.io", "inferencepools", verb) for verb in ("list", "watch")}
    assert of_pool - alpha == {("inference.networking.k8s.io", "inferencepools", verb) for verb in ("list", "watch")}
    assert not render().has("ClusterRole")


def test_leader_election_has_its_flag_and_rights() -> None:
    release = render(ELECTION)
    assert "--ha-enable-leader-election=true" in release.args
    assert release.has("Role", "my-slo-pool-epp-leader-election")
    leases = {right for right in documented("Role") if right[1] == "leases"}
    assert leases
    assert granted(release) - granted(render()) == leases
    assert not any("leader-election" in name for name in render().names)


def test_a_rollout_with_leader_election_does_not_wait_for_the_old_leader() -> None:
    assert render(ELECTION).deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == "100%"


@pytest.mark.parametrize(
    "values",
    [
        {"inferenceExtension.metricsEndpointAuth": True},
        {"inferenceExtension.flags": [{"name": "metrics-endpoint-auth", "value": True}]},
    ],
)
def test_guarded_metrics_need_reviews(values: dict[str, Any]) -> None:
    release = render(values)
    assert "--metrics-endpoint-auth=true" in release.args
    assert granted(release, "ClusterRole") == documented("ClusterRole")
    # The role is cluster-wide, so its name must differ from that of the same release in another namespace.
    assert release.one("ClusterRole")["metadata"]["name"] == "inference-my-slo-pool-epp"
    (subject,) = release.one("ClusterRoleBinding")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "my-slo-pool-epp", "namespace": "inference"}


@pytest.mark.parametrize(
    ("values", "group", "port"),
    [
        ({"inferencePool.targetPorts": [{"number": 9000}]}, "inference.networking.k8s.io", 9000),
        ({**ALPHA, "inferencePool.targetPortNumber": 9100}, "inference.networking.x-k8s.io", 9100),
    ],
)
def test_gke_checks_the_pools_own_port(values: dict[str, Any], group: str, port: int) -> None:
    release = render({**values, "provider.name": "gke", "gke.monitoringSecret.name": "reader"})
    check = release.one("HealthCheckPolicy", "my-slo-pool")["spec"]
    target = {"group": group, "kind": "InferencePool", "name": "my-slo-pool"}
    assert check["targetRef"] == release.one("GCPBackendPolicy", "my-slo-pool")["spec"]["targetRef"] == target
    assert check["default"]["config"]["httpHealthCheck"] == {"requestPath": "/health", "port": port}
    assert release.one("GCPBackendPolicy")["spec"]["default"] == {"timeoutSec": 300, "logging": {"enabled": True}}
    monitoring = release.one("ClusterPodMonitoring", "inference-my-slo-pool")["spec"]
    assert monitoring["selector"]["matchLabels"] == release.deployment["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitoring["endpoints"]
    assert endpoint["interval"] == "5s"
    assert endpoint["authorization"]["credentials"]["secret"] == {
        "name": "reader",
        "key": "token",
        "namespace": "default",
    }


def test_istio_accepts_the_pickers_own_certificate() -> None:
    rule = render({"provider.name": "istio"}).one("DestinationRule", "my-slo-pool-epp")["spec"]
    assert rule["host"] == "my-slo-pool-epp.inference.svc.cluster.local"
    assert rule["trafficPolicy"]["tls"] == {"mode": "SIMPLE", "insecureSkipVerify": True}


def test_without_a_provider_there_are_no_provider_objects() -> None:
    kinds = {"HealthCheckPolicy", "GCPBackendPolicy", "ClusterPodMonitoring", "DestinationRule"}
    assert not kinds & {one["kind"] for one in render().objects}
