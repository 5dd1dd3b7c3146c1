"""A cluster whose pods run: the control plane of tests.kubernetes, and one node, played by this package's agent."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.helm.binaries import RARE_COLLECTION, tool
from tests.kubernetes.control_plane import ApiError, ControlPlane
from tests.live import PATIENCE_S, until
from tests.node.certificates import write_certificate
from tests.node.images import ROOT
from tests.node.network import Subnet, free_subnet, remove_bridge
from tests.node.provisioner import PROVISIONER

_NUMBERS = itertools.count(1)
_LONGEST_S = 300.0


class Cluster:
    """A running cluster, as tests use it. Every call acts as the admin."""

    def __init__(self, plane: ControlPlane, folder: Path, subnet: Subnet) -> None:
        self.plane = plane
        self.folder = folder
        self.subnet = subnet
        self.kubeconfig = plane.kubeconfig()
        self._failure_states: list[str] = []

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None, timeout_s: float = PATIENCE_S) -> str:
        """Run kubectl and return its stdout.

        On failure return stdout and stderr, or raise them as an AssertionError if `check` is set.
        """
        return self._run("kubectl", words, check, stdin, timeout_s)

    def helm(self, *words: str, check: bool = True, timeout_s: float = _LONGEST_S) -> str:
        """Run helm like `kubectl`. Helm's caches and settings lie in the cluster's folder."""
        return self._run("helm", words, check, None, timeout_s)

    def _run(self, name: str, words: Sequence[str], check: bool, stdin: str | None, timeout_s: float) -> str:
        done = subprocess.run(
            [str(tool(name)), *words],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        said = done.stdout + done.stderr
        assert not check, f"{name} {' '.join(words)}: {done.returncode}\n{said}"
        return said

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a tool that keeps running, such as `kubectl logs -f`."""
        command = [str(tool(name)), *words]
        return subprocess.Popen(command, env=self.environment(), stdout=subprocess.PIPE, text=True)

    def processes(self, uid: str) -> list[int]:
        """Return the machine's process ids of the pod with that uid."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/mountinfo") if uid in _read(path)]

    def environment(self) -> dict[str, str]:
        """Return the environment for a tool that talks to this cluster."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        places = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(self.kubeconfig)}
        return {**places, **RARE_COLLECTION}

    def apply(self, *manifests: dict[str, Any], namespace: str = "default") -> None:
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return the object, or an empty dictionary when there is none."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def pods(self, namespace: str, labels: str = "") -> list[dict[str, Any]]:
        """Return the pods that are not being deleted, oldest first."""
        text = self.kubectl("get", "pods", "-n", namespace, "-l", labels, "-o", "json")
        found = [pod for pod in json.loads(text)["items"] if "deletionTimestamp" not in pod["metadata"]]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """Create a namespace whose pods must satisfy the restricted standard. Delete it and its content at the end."""
        name = f"{prefix}-{next(_NUMBERS)}"
        self.kubectl("create", "namespace", name)
        until(lambda: bool(self.get("serviceaccount", "default", name)))
        try:
            yield name
        except BaseException:
            self._failure_states.append(self._state("-n", name))
            raise
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def wait_ready(self, what: str, namespace: str, timeout_s: int = 60) -> None:
        """Wait until a pod is ready, or until `kubectl rollout status` reports all replicas of a Deployment."""
        kind = what.partition("/")[0]
        command = ("rollout", "status", what) if kind != "pod" else ("wait", "--for=condition=Ready", what)
        self.kubectl(*command, "-n", namespace, f"--timeout={timeout_s}s", timeout_s=timeout_s + 10)

    def report(self, since: float) -> str:
        """Return the cluster's state, and the ends of logs written since that Unix time, to explain a failed test."""
        parts = [*self._failure_states, self._state("-A")]
        self._failure_states.clear()
        logs = sorted(log for log in self._logs() if log.stat().st_mtime >= since)
        return "\n".join((*parts, *(f"{log.relative_to(self.folder)}\n{_tail(log)}" for log in logs)))

    def _state(self, *where: str) -> str:
        pods = self.kubectl("get", "pods,pvc", "-o", "wide", *where, check=False)
        return pods + self.kubectl("get", "events", "--sort-by=.lastTimestamp", *where, check=False)

    def _logs(self) -> Iterator[Path]:
        yield self.folder / "agent.log"
        yield from self.folder.glob("pods/*/logs/*/*.log")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-60:])


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a control plane with controllers and scheduler, one node, and StorageClasses. Clean up at the end.

    Raise NetworkError where this process may not make networks.
    """
    with free_subnet() as subnet:
        write_certificate(folder, "node", subnet.gateway)
        write_certificate(folder, "api-server-client")
        with ControlPlane(folder / "plane", api_server_flags=_api_server_flags(folder, subnet)) as plane:
            plane.start_controller_manager("--leader-elect=false")
            plane.start_scheduler("--leader-elect=false")
            cluster = Cluster(plane, folder, subnet)
            with _agent(cluster):
                cluster.apply(*_storage_classes())
                until(lambda: _is_ready(plane))
                yield cluster


def _api_server_flags(folder: Path, subnet: Subnet) -> list[str]:
    admission = folder / "admission.yaml"
    admission.write_text(yaml.safe_dump(_pod_security()))
    return [
        f"--service-cluster-ip-range={subnet.services}",
        f"--admission-control-config-file={admission}",
        f"--kubelet-certificate-authority={folder / 'node.crt'}",
        f"--kubelet-client-certificate={folder / 'api-server-client.crt'}",
        f"--kubelet-client-key={folder / 'api-server-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        # Hand kubectl's WebSockets on to the node, which does not speak SPDY.
        "--feature-gates=TranslateStreamCloseWebsocketRequests=false",
    ]


def _pod_security() -> dict[str, Any]:
    """Return an admission configuration: the restricted standard holds where a namespace's labels set no other."""
    configuration = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "restricted", "enforce-version": "latest"},
        "exemptions": {"namespaces": ["kube-system"]},
    }
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": configuration}],
    }


def _storage_classes() -> list[dict[str, Any]]:
    """Return two StorageClasses: `standard`, the default, and `retained`, whose volumes outlive their claims."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "annotations": annotations},
            "provisioner": PROVISIONER,
            "reclaimPolicy": policy,
        }
        for name, annotations, policy in (("standard", default, "Delete"), ("retained", {}, "Retain"))
    ]


@contextlib.contextmanager
def _agent(cluster: Cluster) -> Iterator[None]:
    words = (str(cluster.kubeconfig), str(cluster.folder), str(cluster.subnet.number), str(cluster.plane.port))
    with (cluster.folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.node", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout
        assert process.stdout.readline().strip().isdigit(), (cluster.folder / "agent.log").read_text()[-4000:]
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        remove_bridge(cluster.subnet)


def _is_ready(plane: ControlPlane) -> bool:
    """Return whether pods can be scheduled: the controllers have seen the node and removed its taints."""
    try:
        node = plane.call("GET", "/api/v1/nodes/node-1")
        plane.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
    except ApiError:
        return False
    return not node["spec"].get("taints")
