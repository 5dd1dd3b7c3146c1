"""A namespace of the API server, with methods that change its objects."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.control_plane import ApiError, ControlPlane
from tests.live import until

_DOCUMENTATION = Path(__file__).parents[2] / "docs" / "kubernetes.md"
_ACCOUNT = "headroom-epp"
LABELS = {"app": "vllm"}


def documented_manifests() -> list[dict[str, Any]]:
    """Return the manifests that the documentation tells operators to apply."""
    blocks = re.findall(r"```yaml\n(.*?)```", _DOCUMENTATION.read_text(), re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


class Namespace:
    """A namespace without a kubelet: a test sets the status of its pods."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self._plane = plane
        self.name = name
        self.picker_token = ""

    def create(self) -> None:
        """Create the namespace with the documentation's service account and roles."""
        manifests = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}]
        for manifest in documented_manifests():
            metadata = manifest["metadata"]
            if "namespace" in metadata:
                metadata["namespace"] = self.name
            elif manifest["kind"] == "ClusterRoleBinding":
                metadata["name"] += f"-{self.name}"
            for subject in manifest.get("subjects", ()):
                subject["namespace"] = self.name
            manifests.append(manifest)
        self._plane.apply(yaml.safe_dump_all(manifests))
        self.picker_token = self._plane.service_account_token(self.name, _ACCOUNT)
        until(self._picker_may_list)

    def add_pod(
        self,
        name: str,
        ip: str = "",
        labels: Mapping[str, str] = LABELS,
        annotations: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> None:
        """Add a pod. With `ip`, also report that a node has started the pod."""
        metadata = {"name": name, "labels": dict(labels), "annotations": dict(annotations or {})}
        # Name a node, though none exists: a pod without a node is deleted at once and never terminates.
        spec = {"nodeName": "node", "containers": [{"name": "server", "image": "server"}]}
        self._call("POST", "pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        if ip:
            self.set_status(name, ip, ready)

    def pods(self) -> list[str]:
        """Return the names of the pods."""
        return [pod["metadata"]["name"] for pod in self._call("GET", "pods")["items"]]

    def ready_addresses(self) -> set[str]:
        """Return the addresses of the pods that the API server now reports as ready."""
        pods = (pod["status"] for pod in self._call("GET", "pods")["items"])
        return {
            status["podIP"]
            for status in pods
            if any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
        }

    def deploy(self, name: str, replicas: int) -> None:
        """Create or change a Deployment of model servers. A controller manager must run to make its pods."""
        template = {
            "metadata": {"labels": LABELS},
            "spec": {"containers": [{"name": "server", "image": "server"}]},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
        self._apply("apps/v1", "Deployment", name, spec)

    def set_status(self, name: str, ip: str, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": str(ready)}, {"type": "PodScheduled", "status": "True"}]
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
        self._merge(f"pods/{name}/status", {"status": status})

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        self._merge(f"pods/{name}", {"metadata": {"annotations": annotations}})

    def terminate_pod(self, name: str) -> None:
        """Ask the pod to end. No node reports that the pod has ended."""
        self._call("DELETE", f"pods/{name}?gracePeriodSeconds=600")

    def remove_pod(self, name: str) -> None:
        self._call("DELETE", f"pods/{name}?gracePeriodSeconds=0")

    def set_pool(
        self, name: str = "pool", labels: Mapping[str, str] = LABELS, ports: tuple[int, ...] = (8000,)
    ) -> None:
        """Create or change an InferencePool of version v1."""
        spec = {
            "selector": {"matchLabels": dict(labels)},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        }
        self._apply("inference.networking.k8s.io/v1", "InferencePool", name, spec)

    def set_experimental_pool(self, name: str = "pool", labels: Mapping[str, str] = LABELS, port: int = 8000) -> None:
        """Create or change an InferencePool of version v1alpha2."""
        spec = {"selector": dict(labels), "targetPortNumber": port, "extensionRef": {"name": "picker"}}
        self._apply("inference.networking.x-k8s.io/v1alpha2", "InferencePool", name, spec)

    def remove_pool(self, name: str = "pool") -> None:
        self._plane.call("DELETE", f"/apis/inference.networking.k8s.io/v1/namespaces/{self.name}/inferencepools/{name}")

    def set_objective(self, name: str, priority: int | None, pool: str = "pool", group: str = "") -> None:
        reference = {"name": pool, **({"group": group} if group else {})}
        spec = {"poolRef": reference, **({} if priority is None else {"priority": priority})}
        self._apply("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective", name, spec)

    def remove_objective(self, name: str) -> None:
        kind = "inference.networking.x-k8s.io/v1alpha2"
        self._plane.call("DELETE", f"/apis/{kind}/namespaces/{self.name}/inferenceobjectives/{name}")

    def lease(self, name: str) -> dict[str, Any]:
        """Return the spec of a lease, or an empty dictionary when there is none."""
        try:
            found = self._plane.call("GET", self._lease_path(name))
        except ApiError:
            return {}
        spec: dict[str, Any] = found["spec"]
        return spec

    def lease_labels(self, name: str) -> dict[str, str]:
        labels: dict[str, str] = self._plane.call("GET", self._lease_path(name))["metadata"]["labels"]
        return labels

    def label_lease(self, name: str, labels: Mapping[str, str]) -> None:
        change = {"metadata": {"labels": labels}}
        self._plane.call("PATCH", self._lease_path(name), change, "application/strategic-merge-patch+json")

    def _lease_path(self, name: str) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.name}/leases/{name}"

    def _apply(self, version: str, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": name, "namespace": self.name}
        manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        self._plane.apply(yaml.safe_dump(manifest))

    def _merge(self, path: str, change: Mapping[str, Any]) -> None:
        self._call("PATCH", path, change, "application/strategic-merge-patch+json")

    def _call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        return self._plane.call(method, f"/api/v1/namespaces/{self.name}/{path}", body, content)

    def _picker_may_list(self) -> bool:
        """Return whether the roles have taken effect, which takes a moment."""
        group = f"/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/{self.name}/inferenceobjectives"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}}
        try:
            self._plane.call("GET", group, token=self.picker_token)
            self._plane.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review, token=self.picker_token)
        except ApiError:
            return False
        return True
