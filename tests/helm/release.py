"""Render the chart with real helm, and read the rendered objects."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from tests.helm.binaries import RARE_COLLECTION, tool
from tests.live import PATIENCE_S

CHART = Path(__file__).parents[2] / "helm" / "inferencepool"
SLO_VALUES = CHART / "values-slo-example.yaml"
# Values of a user with custom images.
CUSTOM_VALUES = Path(__file__).parent / "custom-values.yaml"
LABELS = {"app": "my-model-server"}
Object = dict[str, Any]


class HelmError(Exception):
    """Helm failed; the text is its output."""


class StrictLoader(yaml.CSafeLoader):
    """A YAML loader that refuses duplicate keys, because a duplicate key is a mistake in a template."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = {key for key in keys if keys.count(key) > 1}
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {sorted(twice)}", node.start_mark)
        return found


# Kubernetes reads the values = and << as texts; this library would give them types of their own.
for _tag in ("value", "merge"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: str(node.value))


@dataclass(frozen=True)
class Release:
    """A rendered release. The picker's parts have properties, because most tests are about the picker."""

    objects: tuple[Object, ...]

    @classmethod
    def of(cls, text: str) -> Self:
        found = yaml.load_all(text, StrictLoader)
        return cls(tuple(one for one in found if one))

    def find(self, kind: str, name: str | None = None) -> Iterator[Object]:
        for one in self.objects:
            if one["kind"] == kind and name in (None, one["metadata"]["name"]):
                yield one

    def one(self, kind: str, name: str | None = None) -> Object:
        found = list(self.find(kind, name))
        assert len(found) == 1, f"{len(found)} objects are {kind} {name or ''}, of {self.names}"
        return found[0]

    def has(self, kind: str, name: str | None = None) -> bool:
        return any(self.find(kind, name))

    @property
    def names(self) -> list[str]:
        return [f"{one['kind']} {one['metadata']['name']}" for one in self.objects]

    @cached_property
    def deployment(self) -> Object:
        return next(one for one in self.find("Deployment") if one["metadata"]["name"].endswith("-epp"))

    @property
    def pod(self) -> Object:
        spec: Object = self.deployment["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> dict[str, Object]:
        return {container["name"]: container for container in self.pod["containers"]}

    @property
    def args(self) -> list[str]:
        args: list[str] = self.containers["epp"]["args"]
        return args

    @property
    def service_ports(self) -> dict[str, int]:
        service = next(one for one in self.find("Service") if one["metadata"]["name"].endswith("-epp"))
        return {port["name"]: port["port"] for port in service["spec"]["ports"]}

    @property
    def pods(self) -> Iterator[Object]:
        """The specs of all pods of the release, including those of Deployments."""
        for one in self.objects:
            if one["kind"] == "Pod":
                yield one["spec"]
            elif one["kind"] == "Deployment":
                yield one["spec"]["template"]["spec"]


def env(container: Object) -> dict[str, Any]:
    """Return a container's own variables by name, as texts or as their `valueFrom`."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def mounts(container: Object) -> dict[str, Object]:
    """Return a container's mounts by the volume's name."""
    return {one["name"]: one for one in container["volumeMounts"]}


def helm(*arguments: str | Path) -> str:
    """Run helm without a cluster and without repositories. Return its output, or raise HelmError with it."""
    nowhere = {"KUBECONFIG": os.devnull, "HELM_REPOSITORY_CONFIG": os.devnull}
    environment = {**os.environ, **RARE_COLLECTION, **nowhere}
    done = subprocess.run(
        [str(tool("helm")), *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=PATIENCE_S
    )
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


def arguments(
    values: Mapping[str, Any] | None = None, files: Sequence[Path] = (), sets: Sequence[str] = (), labels: bool = True
) -> list[str]:
    """Return helm's arguments for these values. Include the required labels unless `labels` is false."""
    given = ["--set-json", f"inferencePool.modelServers.matchLabels={json.dumps(LABELS)}"] if labels else []
    for file in files:
        given += ["--values", str(file)]
    for key, value in (values or {}).items():
        given += ["--set-json", f"{key}={json.dumps(value)}"]
    for one in sets:
        given += ["--set", one]
    return given


def render(
    values: Mapping[str, Any] | None = None,
    *,
    files: Sequence[Path] = (),
    sets: Sequence[str] = (),
    labels: bool = True,
    name: str = "my-slo-pool",
    namespace: str = "inference",
    chart: Path = CHART,
) -> Release:
    """Render the release. Raise HelmError if the chart refuses a value."""
    given = arguments(values, files, sets, labels)
    return Release.of(_template(name, chart, "--namespace", namespace, *given))


@cache
def _template(*arguments: str | Path) -> str:
    return helm("template", *arguments)
