"""Every pod of the chart passes the restricted Pod Security Standard, and its root file system is read-only."""

from typing import Any

import pytest

from tests.helm.release import HelmError, Object, Release, env, mounts, render

EVERYTHING = {
    "sidecars.trainingServer.enabled": True,
    "sidecars.predictionServers.enabled": True,
    "standalone.enabled": True,
    "monitoring.grafanaDashboard.enabled": True,
}
FLEET = {**EVERYTHING, "inferenceExtension.replicas": 2, "modelStore.s3.url": "s3://models"}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


@pytest.fixture(scope="module", params=[EVERYTHING, FLEET], ids=["one pod", "fleet"])
def release(request: pytest.FixtureRequest) -> Release:
    return render(request.param)


def violations(pod: Object) -> list[str]:
    """Return how a pod's spec violates the restricted standard."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [f"volume {one['name']}" for one in pod["volumes"] if not one.keys() - {"name"} <= _VOLUMES]
    if pod["securityContext"].get("sysctls"):
        found.append("sysctls")
    for container in pod["containers"]:
        own, name = {**pod["securityContext"], **container["securityContext"]}, container["name"]
        found += [f"{name}: hostPort" for port in container.get("ports", ()) if port.get("hostPort")]
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: privileges")
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append(f"{name}: root")
        if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(f"{name}: seccomp")
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            found.append(f"{name}: capabilities")
    return found


def test_every_pod_is_restricted(release: Release) -> None:
    pods = list(release.pods)
    assert len(pods) >= 2
    assert [violations(pod) for pod in pods] == [[] for _ in pods]


def test_root_file_systems_are_read_only_and_tmp_is_memory(release: Release) -> None:
    for pod in release.pods:
        volumes = {one["name"]: one for one in pod["volumes"]}
        assert volumes["tmp"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert mounts(container)["tmp"]["mountPath"] == "/tmp"  # noqa: S108


def test_every_mount_has_a_volume_and_every_volume_is_mounted(release: Release) -> None:
    for pod in release.pods:
        used = {name for container in pod["containers"] for name in mounts(container)}
        assert used == {one["name"] for one in pod["volumes"]}


def test_the_volume_belongs_to_the_containers_group(release: Release) -> None:
    for pod in release.pods:
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] == 65532


def test_only_the_pickers_pod_has_a_token(release: Release) -> None:
    tokens = [(pod.get("serviceAccountName"), pod["automountServiceAccountToken"]) for pod in release.pods]
    assert [name for name, has_token in tokens if has_token] == ["my-slo-pool-epp"]
    assert all(account["automountServiceAccountToken"] is False for account in release.find("ServiceAccount"))


def test_every_container_has_requests_and_a_memory_limit(release: Release) -> None:
    for pod in release.pods:
        for container in pod["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_every_server_is_probed(release: Release) -> None:
    servers = [container for pod in release.pods for container in pod["containers"] if container["name"] != "ask"]
    for container in servers:
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_probes_use_endpoints_that_the_servers_have() -> None:
    containers = render(EVERYTHING).containers
    services = {probe: containers["epp"][f"{probe}Probe"]["grpc"]["service"] for probe in ("liveness", "readiness")}
    # A missing pool makes the picker unready, not dead: a restart would not help.
    assert services == {"liveness": "liveness", "readiness": "readiness"}
    for name, port in (("training-server", "training"), ("prediction-server-2", "predict-2")):
        probes = [containers[name][f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]
        # Without a model the pod still routes, with the default profile.
        assert probes == [{"path": "/healthz", "port": port}] * 3


def test_security_may_be_loosened_where_a_platform_assigns_users() -> None:
    release = render(sets=["podSecurityContext.runAsUser=null", "podSecurityContext.fsGroup=null"])
    assert not {"runAsUser", "fsGroup"} & release.pod["securityContext"].keys()
    assert release.pod["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(
    ("values", "enough"),
    [({}, 33), ({"standalone.enabled": True, "standalone.proxy.drainSeconds": 60}, 93)],
)
def test_the_grace_period_must_exceed_the_shutdown(values: dict[str, Any], enough: int) -> None:
    key = "inferenceExtension.terminationGracePeriodSeconds"
    assert render({**values, key: enough}).pod["terminationGracePeriodSeconds"] == enough
    with pytest.raises(HelmError, match=r"terminationGracePeriodSeconds has to be longer"):
        render({**values, key: enough - 1})


def test_the_grace_period_follows_the_flags() -> None:
    flags = {"inferenceExtension.flags": [{"name": "drain-timeout", "value": "2m10s"}]}
    with pytest.raises(HelmError, match="than what the picker takes to end: 132 s"):
        render(flags)
    assert render({**flags, "inferenceExtension.terminationGracePeriodSeconds": 133})


def test_a_certificate_is_mounted_where_the_picker_looks() -> None:
    release = render({"inferenceExtension.tls.existingSecret": "certificate"})
    assert "--cert-path=/certs" in release.args
    assert mounts(release.containers["epp"])["tls"] == {"name": "tls", "mountPath": "/certs", "readOnly": True}


def peers(policy: Object) -> dict[str, object]:
    """Return by port which peers a network policy admits."""
    return {port["port"]: rule.get("from", "everyone") for rule in policy["spec"]["ingress"] for port in rule["ports"]}


def test_a_network_policy_admits_the_named_peers() -> None:
    gateways = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}]
    prometheus = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    named = {
        "networkPolicy.enabled": True,
        "networkPolicy.gatewayFrom": gateways,
        "networkPolicy.metricsFrom": prometheus,
        "sidecars.trainingServer.enabled": True,
        "sidecars.predictionServers.enabled": True,
        "sidecars.predictionServers.replicas": 1,
    }
    beside = render(named)
    # The policy must also admit the pod of `helm test`.
    (label,) = beside.one("Pod")["metadata"]["labels"].items() - beside.deployment["metadata"]["labels"].items()
    test = [{"podSelector": {"matchLabels": dict([label])}}]
    assert peers(beside.one("NetworkPolicy")) == {
        "grpc": gateways + test,
        "metrics": prometheus + test,
        "training": prometheus + test,
        "predict-1": prometheus + test,
    }
    apart = render({**named, "inferenceExtension.replicas": 2, "modelStore.s3.url": "s3://models"})
    assert "training" not in peers(apart.one("NetworkPolicy", "my-slo-pool-epp"))
    pickers = [{"podSelector": {"matchLabels": {"inferencepool": "my-slo-pool-epp"}}}]
    assert peers(apart.one("NetworkPolicy", "my-slo-pool-training")) == {"training": pickers + test + prometheus}
    assert not render().has("NetworkPolicy")


def test_users_set_placement_and_other_fields_of_pods() -> None:
    placement = {
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "priorityClassName": "high",
    }
    values = {f"inferenceExtension.{key}": value for key, value in placement.items()}
    release = render(
        {
            **values,
            "inferenceExtension.podLabels": {"team": "serving"},
            "inferenceExtension.podAnnotations": {"a": "b"},
            "inferenceExtension.imagePullSecrets": [{"name": "registry"}],
            "inferenceExtension.extraContainerPorts": [{"name": "more", "containerPort": 9999}],
            "inferenceExtension.extraServicePorts": [{"name": "more", "port": 9999, "targetPort": "more"}],
        }
    )
    assert placement.items() <= release.pod.items()
    metadata = release.deployment["spec"]["template"]["metadata"]
    assert metadata["labels"] == {"team": "serving", "inferencepool": "my-slo-pool-epp"}
    assert metadata["annotations"]["a"] == "b"
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in release.pods)
    assert release.service_ports["more"] == 9999
    assert {"name": "more", "containerPort": 9999} in release.containers["epp"]["ports"]


def test_debug_pages_are_for_the_pickers_own_pod_unless_the_user_says_otherwise() -> None:
    def access(values: dict[str, Any]) -> Any:
        return env(render(values).containers["epp"])["EPP_DEBUG_ACCESS"]

    assert access({}) == "local"
    assert access({"inferenceExtension.debugAccess": "all"}) == "all"
    assert access({"inferenceExtension.env": {"EPP_DEBUG_ACCESS": "all"}}) == "all"
    with pytest.raises(HelmError, match="debugAccess"):
        render({"inferenceExtension.debugAccess": "cluster"})
