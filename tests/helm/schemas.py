"""Validate objects by the schemas of each Kubernetes version, from the package `kubernetes-validate`.

The strict schemas refuse unknown fields, as the API server does for helm. CustomResourceDefinitions validate the
gateway API's own resources. Kinds of other projects have no schema here.
"""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

_CRDS = Path(__file__).parents[1] / "kubernetes" / "crds.yaml"
# API versions of GKE, Istio and the Prometheus operator, which have no schema here.
FOREIGN = frozenset(
    {
        "networking.gke.io/v1",
        "monitoring.googleapis.com/v1",
        "networking.istio.io/v1",
        "monitoring.coreos.com/v1",
    }
)


def versions() -> list[str]:
    """Return the Kubernetes versions that the chart supports, starting with kubeVersion in Chart.yaml."""
    found = [path.name.removesuffix("-local-strict") for path in _folder().glob("v*-local-strict")]
    return sorted((one for one in found if _number(one) >= (1, 30)), key=_number)


def problems(version: str, one: Mapping[str, Any]) -> list[str]:
    """Return an object's errors. Raise KeyError for a kind that this version doesn't know."""
    api_version, kind = one["apiVersion"], one["kind"]
    if api_version in FOREIGN:
        return []
    validator = _custom().get((api_version, kind)) or _validator(version, api_version, kind)
    return [
        f"{kind} {'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(one)
    ]


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    folder = _folder() / f"{version}-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = folder / f"{kind.lower()}-{group}.json"
    if not file.exists():
        raise KeyError(f"Kubernetes {version} knows no {kind} of {api_version}")
    definitions = _definitions(version)
    registry = jsonschema_rs.Registry([(definitions["$id"], definitions)])
    return jsonschema_rs.validator_for(json.loads(file.read_text()), registry=registry)


@cache
def _definitions(version: str) -> Any:
    return json.loads((_folder() / f"{version}-local-strict" / "_definitions.json").read_text())


def _folder() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    assert spec is not None, "the package kubernetes-validate is missing"
    assert spec.origin is not None
    return Path(spec.origin).parent / "kubernetes-json-schema"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.removeprefix("v").split(".")[:2]))


@cache
def _custom() -> Mapping[tuple[str, str], Any]:
    return dict(_custom_validators())


def _custom_validators() -> Iterator[tuple[tuple[str, str], Any]]:
    for definition in yaml.safe_load_all(_CRDS.read_text()):
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"].update({"metadata": {}, "apiVersion": {}, "kind": {}})
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            yield key, jsonschema_rs.validator_for(_closed(schema))


def _closed(schema: Any) -> Any:
    """Return the schema with unknown fields forbidden, because the API server would drop them with a warning."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if "properties" in closed and "additionalProperties" not in closed and isinstance(closed["properties"], dict):
        closed["additionalProperties"] = False
    return closed
