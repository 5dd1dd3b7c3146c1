"""Test the chart against a real API server, which validates objects, pods and upgrades. Nothing runs the pods."""

import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helm.binaries import RARE_COLLECTION, tool
from tests.helm.release import CHART, arguments
from tests.helm.test_matrix import MATRIX
from tests.kubernetes.control_plane import ControlPlane
from tests.live import PATIENCE_S, until

pytestmark = pytest.mark.slow
SIDECARS = {"sidecars.trainingServer.enabled": True, "sidecars.predictionServers.enabled": True}
CLAIM = {"sidecars.trainingServer.persistence.enabled": True}
BUCKET = {"modelStore.s3.url": "s3://models"}
# Values that need resources of GKE, Istio or the Prometheus operator, which this API server does not know.
_FOREIGN = ("monitoring.", "provider.")
_NUMBERS = itertools.count()


class Cluster:
    """An API server with controllers, used through helm and kubectl."""

    def __init__(self, kubeconfig: Path) -> None:
        home = {"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent), "PATH": ""}
        self._environment = {**home, **RARE_COLLECTION}

    def helm(self, *words: str | Path) -> str:
        return self._run("helm", *words)

    def kubectl(self, *words: str) -> str:
        return self._run("kubectl", *words)

    def found(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def namespace(self) -> str:
        """Create an empty namespace that accepts only restricted pods, and return its name."""
        name = f"chart-{next(_NUMBERS)}"
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        return name

    def upgrade(self, namespace: str, values: Mapping[str, Any]) -> None:
        """Install the release `pool`, or upgrade it to these values."""
        self.helm("upgrade", "--install", "pool", CHART, "-n", namespace, "--reset-values", *arguments(values))

    def _run(self, name: str, *words: str | Path) -> str:
        command = [str(tool(name)), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def cluster(control_plane_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        plane.start_controller_manager()
        yield Cluster(plane.kubeconfig(plane.tokens["admin"]))


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_a_restricted_namespace_accepts_every_pod(cluster: Cluster, values: dict[str, Any]) -> None:
    namespace = cluster.namespace()
    cluster.upgrade(namespace, {key: value for key, value in values.items() if not key.startswith(_FOREIGN)})

    def made() -> bool:
        sets = cluster.found("replicasets", "-n", namespace)["items"]
        refusals = [one["message"] for item in sets for one in item["status"].get("conditions", ())]
        assert refusals == []
        deployments = len(cluster.found("deployments", "-n", namespace)["items"])
        return len(sets) == deployments and all(item["status"]["replicas"] == item["spec"]["replicas"] for item in sets)

    until(made)


def test_a_release_changes_between_all_kinds_of_values(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    steps: list[tuple[dict[str, Any], str, int]] = [
        ({}, "RollingUpdate", 1),
        (SIDECARS, "RollingUpdate", 5),
        ({**SIDECARS, **CLAIM}, "Recreate", 5),
        (SIDECARS, "RollingUpdate", 5),
        ({"inferenceExtension.enableLeaderElection": True, "inferenceExtension.replicas": 2}, "RollingUpdate", 1),
        ({**SIDECARS, **BUCKET, "inferenceExtension.replicas": 3}, "RollingUpdate", 4),
        ({"standalone.enabled": True}, "RollingUpdate", 2),
        ({**SIDECARS, **CLAIM}, "Recreate", 5),
    ]
    for values, strategy, containers in steps:
        cluster.upgrade(namespace, values)
        spec = cluster.found("deployment", "pool-epp", "-n", namespace)["spec"]
        assert (spec["strategy"]["type"], len(spec["template"]["spec"]["containers"])) == (strategy, containers)
    cluster.helm("rollback", "pool", "-n", namespace)
    spec = cluster.found("deployment", "pool-epp", "-n", namespace)["spec"]
    assert len(spec["template"]["spec"]["containers"]) == 2


def test_only_the_claim_outlives_the_release_and_the_next_one_takes_it_over(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    kinds = "all,configmaps,persistentvolumeclaims,serviceaccounts,roles,rolebindings,inferencepools"

    def names() -> set[str]:
        # The controllers put these objects into every namespace.
        own = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
        listed = cluster.kubectl("get", kinds, "-n", namespace, "-o", "name").split()
        return {name for name in listed if name not in own and not name.startswith(("pod/", "replicaset."))}

    cluster.upgrade(namespace, {**SIDECARS, **CLAIM})
    claim = cluster.found("pvc", "pool-model-store", "-n", namespace)["metadata"]["uid"]
    cluster.helm("uninstall", "pool", "-n", namespace)
    until(lambda: names() == {"persistentvolumeclaim/pool-model-store"})
    cluster.upgrade(namespace, {**SIDECARS, **CLAIM})
    assert cluster.found("pvc", "pool-model-store", "-n", namespace)["metadata"]["uid"] == claim


def test_two_releases_of_one_name_do_not_collide(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.upgrade(cluster.namespace(), {"inferenceExtension.metricsEndpointAuth": True})
