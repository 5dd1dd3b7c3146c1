"""Install the chart with the real helm in a cluster with model servers, and send requests to it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live import PATIENCE_S, call, until
from tests.node.cluster import Cluster
from tests.node.manifests import container, deployment

CHART = Path(__file__).parents[2] / "helm" / "inferencepool"
SLO_VALUES = CHART / "values-slo-example.yaml"
SERVERS = "my-model-server"
# The arguments of the documented install command, except the chart's location.
SEED = ("--values", str(SLO_VALUES), "--set", f"inferencePool.modelServers.matchLabels.app={SERVERS}")
WAIT = ("--wait", "--timeout", "120s")
# Envoy in the picker's pod. On a busy machine a picker may stand still for longer than the usual 200 ms.
STANDALONE = ("--set", "standalone.enabled=true", "--set", "standalone.proxy.messageTimeout=5s")


@dataclass(frozen=True)
class Release:
    """An installed release of the chart."""

    cluster: Cluster
    namespace: str
    name: str = "my-slo-pool"

    def helm(self, verb: str, *words: str) -> str:
        return self.cluster.helm(verb, self.name, *words, "--namespace", self.namespace)

    def kubectl(self, verb: str, *words: str, check: bool = True) -> str:
        return self.cluster.kubectl(verb, "-n", self.namespace, *words, check=check)

    def upgrade(self, *values: str) -> None:
        self.helm("upgrade", str(CHART), *SEED, *values, *WAIT)

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The picker's pods."""
        return self.cluster.pods(self.namespace, f"inferencepool={self.name}-epp")

    @property
    def pod(self) -> str:
        """The name of the picker's only pod."""
        (pod,) = self.pods
        return str(pod["metadata"]["name"])

    @property
    def address(self) -> str:
        (pod,) = self.pods
        return str(pod["status"]["podIP"])

    def get(self, port: int, path: str) -> Any:
        """Return the answer of the picker's pod to a GET. Fail unless its status is 200."""
        status, answer = call(f"http://{self.address}:{port}{path}")
        assert status == 200, answer
        return answer

    def debug(self, page: str, pod: str = "") -> Any:
        """Return a /debug page of a picker, by default of the only one. Only its own pod may read the page."""
        url = f"http://localhost:9090/debug/{page}"
        return json.loads(self.kubectl("exec", pod or self.pod, "-c", "epp", "--", "curl", "-sSf", url))

    def objects(self) -> set[str]:
        """Return everything in the namespace that a release may leave behind, as kind/name."""
        kinds = "pods,deployments,services,configmaps,serviceaccounts,roles,rolebindings,secrets,persistentvolumeclaims"
        kinds += ",inferencepools,poddisruptionbudgets,networkpolicies,leases,horizontalpodautoscalers"
        found = self.kubectl("get", kinds, "-o", "name").split()
        return {name for name in found if not name.endswith(("/kube-root-ca.crt", "serviceaccount/default"))}


@contextmanager
def installed(cluster: Cluster, *values: str, wait: Sequence[str] = WAIT) -> Iterator[Release]:
    """Install the example release with further values in a new namespace. Uninstall it at the end."""
    with cluster.namespace("inference") as namespace:
        release = Release(cluster, namespace)
        serve_models(cluster, namespace)
        release.helm("install", str(CHART), *SEED, *values, *wait)
        try:
            yield release
        finally:
            release.helm("uninstall", "--ignore-not-found", "--wait")


def serve_models(cluster: Cluster, namespace: str, replicas: int = 2) -> None:
    """Start fast simulated model servers with the label that the release selects."""
    ports = [{"containerPort": 8000, "name": "http"}]
    ready = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1}
    args = ("--port", "8000", "--speed-factor", "20")
    server = container("example.com/simulator:v1", *args, ports=ports, readinessProbe=ready)
    cluster.apply(deployment(SERVERS, server, replicas=replicas), namespace=namespace)
    cluster.wait_ready(f"deployment/{SERVERS}", namespace)


def ask(url: str, number: int, headers: dict[str, str] | None = None) -> int:
    """Send a streamed completion, read its body to the end, and return its status."""
    import urllib.error
    import urllib.request

    body = {"model": "simulated-model", "prompt": f"{number} " + "word " * (20 + number % 50), "max_tokens": 8}
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/completions",
        json.dumps({**body, "stream": True}).encode(),
        {"content-type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            # Envoy and the picker refuse in different words.
            refusal = f"request {number} got {error.code}: {error.read()[:500]!r}, {dict(error.headers)}"
        raise AssertionError(refusal) from error


def sample_rows(count: int, ttft_ms: float = 100.0) -> dict[str, Any]:
    """Return training rows as a picker would send them. The latencies grow with the prompt and the queue."""
    rows = []
    for index in range(count):
        tokens, waiting = 10 + index * 7 % 500, index % 5
        row = {
            "kv_cache_percentage": index % 10 / 10,
            "input_token_length": tokens,
            "num_request_waiting": waiting,
            "num_request_running": index % 8,
            "num_tokens_generated": 0,
            "prefix_cache_score": 0.0,
        }
        rows.append({**row, "actual_ttft_ms": ttft_ms + tokens / 10 + 5 * waiting, "actual_tpot_ms": 0.0})
        rows.append({**row, "actual_ttft_ms": 0.0, "actual_tpot_ms": 10.0 + index % 8})
    return {"entries": rows}


def train(release: Release, count: int = 300) -> int:
    """Send rows to the trainer, wait until every prediction server serves a model, and return its generation."""
    status, answer = call(f"http://{release.address}:8000/add_training_data_bulk", sample_rows(count))
    assert status in (200, 202), answer
    until(lambda: generation(release, 8001) > 0)
    until(lambda: all(generation(release, port) > 0 for port in (8002, 8003)))
    return generation(release, 8001)


def generation(release: Release, port: int) -> int:
    """Return the generation that a prediction server serves, or 0 if it serves none."""
    found = release.get(port, "/status").get("generation")
    return int(found or 0)
