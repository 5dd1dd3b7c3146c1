"""A container's environment, command and identity, derived from a pod's spec as the kubelet does."""

import re
from collections.abc import Mapping
from typing import Protocol

from tests.node.images import Image
from tests.node.network import Subnet
from tests.node.objects import Container, EnvVar, FieldSelector, Pod

# containerd's default set; "drop: [ALL]" empties it.
_DEFAULT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
_NAMED_CAPABILITIES = {"NET_BIND_SERVICE": 10, "NET_RAW": 13, "CHOWN": 0, "SETUID": 7, "SETGID": 6, "KILL": 5}
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z0-9]+)\))")


class ConfigurationError(Exception):
    """A container can't be made from its pod's spec. Kubernetes calls this CreateContainerConfigError."""


class Maps(Protocol):
    """A source of ConfigMaps and Secrets by namespace and name. Its methods return None for an absent object."""

    async def config_map(self, namespace: str, name: str) -> dict[str, bytes] | None: ...

    async def secret(self, namespace: str, name: str) -> dict[str, bytes] | None: ...


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value and $$ by one dollar. Keep $(NAME) when the name has no value."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else values.get(name, match[0])

    return _REFERENCE.sub(one, text)


def argv(container: Container, image: Image, env: Mapping[str, str]) -> list[str]:
    """Return the process's arguments.

    `command` replaces the image's entry point and default arguments; `args` replaces the default arguments only.
    """
    start = container.command or image.entrypoint
    rest = container.args or ([] if container.command else image.command)
    return [expand(word, env) for word in (*start, *rest)]


async def environment(
    pod: Pod, container: Container, image: Image, address: str, subnet: Subnet, maps: Maps
) -> dict[str, str]:
    """Return the container's environment. Raise ConfigurationError when a reference in it is missing."""
    values: dict[str, str] = {}
    for source in container.env_from:
        reference = source.config_map_ref or source.secret_ref
        assert reference
        read = maps.config_map if source.config_map_ref else maps.secret
        found = await read(pod.metadata.namespace, reference.name)
        if found is None and not reference.optional:
            kind = "configmap" if source.config_map_ref else "secret"
            raise ConfigurationError(f'{kind} "{reference.name}" not found')
        values |= {f"{source.prefix}{key}": _text(value) for key, value in (found or {}).items()}
    for variable in container.env:
        value = await _value(pod, variable, address, subnet, maps)
        if value is not None:
            values[variable.name] = expand(value, values) if variable.value_from is None else value
    return {**image.env, **_standard_variables(pod, subnet), **values}


def hostname(pod: Pod) -> str:
    """Return the host name, cut like the kubelet does, because Linux accepts at most 64 characters."""
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def _standard_variables(pod: Pod, subnet: Subnet) -> dict[str, str]:
    """Return the variables of every container.

    The API server is the only Service with variables here. Tests reach other Services by DNS name.
    """
    return {
        "HOSTNAME": hostname(pod),
        "HOME": "/",
        "KUBERNETES_SERVICE_HOST": subnet.api_server,
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    }


async def _value(pod: Pod, variable: EnvVar, address: str, subnet: Subnet, maps: Maps) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value
    if source.field_ref:
        return field_value(pod, source.field_ref, address, subnet)
    reference = source.config_map_key_ref or source.secret_key_ref
    if reference is None:
        raise ConfigurationError(f"{variable.name}: this node knows no resourceFieldRef")
    read, kind = (maps.config_map, "configmap") if source.config_map_key_ref else (maps.secret, "secret")
    found = await read(pod.metadata.namespace, reference.name)
    if found is not None and reference.key in found:
        return _text(found[reference.key])
    if reference.optional:
        return None
    missing = f'{kind} "{reference.name}" not found'
    raise ConfigurationError(missing if found is None else f"couldn't find key {reference.key} in {kind} {reference}")


def _text(value: bytes) -> str:
    """Decode UTF-8. Bytes that are not UTF-8 reach the process unchanged."""
    return value.decode(errors="surrogateescape")


def field_value(pod: Pod, selector: FieldSelector, address: str, subnet: Subnet) -> str:
    """Return the value of a field of the pod. Raise ConfigurationError for an unknown path."""
    path, _, key = selector.field_path.partition("[")
    metadata, key = pod.metadata, key.strip("']\"")
    if path in {"metadata.labels", "metadata.annotations"}:
        values = metadata.labels if path == "metadata.labels" else metadata.annotations
        return values.get(key, "") if key else "\n".join(f'{name}="{value}"' for name, value in sorted(values.items()))
    known = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": subnet.gateway,
        "status.hostIPs": subnet.gateway,
    }
    if path not in known:
        raise ConfigurationError(f"unsupported fieldPath: {selector.field_path}")
    return known[path]


def identity(pod: Pod, container: Container, image: Image) -> tuple[int, int, list[int]]:
    """Return user, group and supplemental groups. Raise ConfigurationError for root where runAsNonRoot is set."""
    outer, own = pod.spec.security_context, container.security_context
    user = next((user for user in (own.run_as_user, outer.run_as_user) if user is not None), image.user)
    groups = (own.run_as_group, outer.run_as_group)
    # As in containerd, a user other than the image's is in group 0.
    default = image.group if user == image.user else 0
    group = next((group for group in groups if group is not None), default)
    must = own.run_as_non_root if own.run_as_non_root is not None else outer.run_as_non_root
    if must and user == 0:
        raise ConfigurationError("container has runAsNonRoot and image will run as root")
    further = set(outer.supplemental_groups) | ({outer.fs_group} if outer.fs_group is not None else set())
    return user, group, sorted(further)


def capabilities(container: Container) -> list[int]:
    """Return the container's capabilities. Raise ConfigurationError for an added one that this node doesn't know."""
    wanted = container.security_context.capabilities
    unknown = [name for name in wanted.add if name not in _NAMED_CAPABILITIES]
    if unknown:
        raise ConfigurationError(f"this node can't add the capabilities {', '.join(unknown)}")
    dropped = {_NAMED_CAPABILITIES.get(name) for name in wanted.drop}
    kept = frozenset[int]() if "ALL" in wanted.drop else frozenset(c for c in _DEFAULT_CAPABILITIES if c not in dropped)
    return sorted(kept | {_NAMED_CAPABILITIES[name] for name in wanted.add})
