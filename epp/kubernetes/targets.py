"""The pods and ports that serve a pool: from an InferencePool, or from flags."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from epp.exceptions import ConfigError
from epp.kubernetes.objects import POOLS, AnyPool, Objective, Pod
from epp.pool.addresses import join_address
from epp.scheduling.snapshot import Endpoint

# The annotation by which a pod names the ports of the pool that it serves now, by commas.
_ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
_LABEL = re.compile(
    r"(?P<key>([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)=(?P<value>[\w.-]{0,63})", re.A
)
_PORT = re.compile(r"[1-9]\d{0,4}", re.ASCII)
_MAX_PORTS = 64


@dataclass(frozen=True)
class PoolName:
    """The name and namespace of the InferencePool to follow."""

    name: str
    group: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("--pool-name: the name of the InferencePool is missing")
        if self.group not in POOLS:
            raise ConfigError(f"--pool-group: expected {' or '.join(POOLS)}, got {self.group!r}")

    def __str__(self) -> str:
        return f"InferencePool {self.name} of {self.group}"


@dataclass(frozen=True)
class TargetPods:
    """Pods with all of these labels, on each of these ports. No label asks for every pod of the namespace."""

    labels: Mapping[str, str]
    ports: tuple[int, ...]

    @property
    def selector(self) -> str:
        """Return the label selector in the API's syntax."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.labels.items()))

    def __str__(self) -> str:
        return f"pods of {self.selector or 'any label'}, ports {', '.join(map(str, self.ports))}"


def parse_target(selector: str, ports: str) -> TargetPods:
    """Parse `key=value,...` and `8000,8001`. ConfigError names the flag and the wrong part."""
    labels = {}
    for part in filter(None, selector.split(",")):
        found = _LABEL.fullmatch(part.strip())
        if not found:
            raise ConfigError(f"--endpoint-selector: expected key=value, by commas, got {part!r}")
        labels[found["key"]] = found["value"]
    numbers = [part.strip() for part in ports.split(",") if part.strip()]
    wrong = next((text for text in numbers if not _PORT.fullmatch(text) or int(text) > 65535), None)
    if wrong is not None:
        raise ConfigError(f"--endpoint-target-ports: expected ports by commas, got {wrong[:20]!r}")
    if not labels or not numbers:
        raise ConfigError("--endpoint-selector and --endpoint-target-ports: both are needed, or neither")
    if len(numbers) > _MAX_PORTS:
        raise ConfigError(f"--endpoint-target-ports: {len(numbers)} ports are more than {_MAX_PORTS}")
    return TargetPods(labels, tuple(dict.fromkeys(map(int, numbers))))


def target_of(pool: AnyPool) -> TargetPods | None:
    """Return the pods that a pool selects; None once the pool is being deleted."""
    if pool.metadata.deletionTimestamp:
        return None
    return TargetPods(pool.selector, pool.target_ports)


def endpoints_of(pods: Iterable[Pod], ports: tuple[int, ...]) -> tuple[Endpoint, ...]:
    """Return an endpoint for each port of each pod that is ready and stays, in the order of their names.

    With several ports, each is a rank of its pod, and is named so.
    """
    return tuple(
        Endpoint(
            pod.metadata.name if len(ports) == 1 else f"{pod.metadata.name}-rank-{rank}",
            join_address(pod.status.podIP, port),
            pod.metadata.labels or {},
        )
        for pod in sorted(pods, key=lambda pod: pod.metadata.name)
        if _serves(pod)
        for rank, port in enumerate(ports)
        if _is_active(pod, port)
    )


def priorities_of(objectives: Iterable[Objective], pool: PoolName) -> dict[str, int]:
    """Return the priorities of the pool's objectives by name; 0 for those without one."""
    return {
        objective.metadata.name: objective.spec.priority or 0
        for objective in objectives
        if (objective.spec.poolRef.name, objective.spec.poolRef.group) == (pool.name, pool.group)
        and not objective.metadata.deletionTimestamp
    }


def _serves(pod: Pod) -> bool:
    ready = any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())
    return ready and bool(pod.status.podIP) and not pod.metadata.deletionTimestamp


def _is_active(pod: Pod, port: int) -> bool:
    annotations = pod.metadata.annotations or {}
    said = next((annotations[key] for key in _ACTIVE_PORTS if key in annotations), None)
    return said is None or str(port) in (part.strip() for part in said.split(","))
