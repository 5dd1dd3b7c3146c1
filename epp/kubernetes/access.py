"""Connect to the Kubernetes API by a kubeconfig, or as the service account of this process's pod."""

import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import yaml

from epp.exceptions import ConfigError
from epp.kubernetes.client import Client
from epp.kubernetes.kubeconfig import Access, read_kubeconfig, read_service_account

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
DEFAULT_KUBECONFIG: Final = "~/.kube/config"
# Seconds of silence until the first probe and between two of them, and how many may stay without an answer: a machine
# that is gone is noticed in half a minute. Not every system has them all.
_PROBES: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def connect(kubeconfig: str = "", service_account: str = SERVICE_ACCOUNT) -> AbstractAsyncContextManager[Client]:
    """Log in by a kubeconfig (`kubeconfig`, else $KUBECONFIG), else as the service account, else by ~/.kube/config.

    No request is sent yet. Raise ConfigError if none of them exists, or the one to use is unusable.
    """
    named, account = kubeconfig or os.environ.get("KUBECONFIG", ""), Path(service_account)
    is_in_pod = not named and account.exists()
    source = account if is_in_pod else Path(named or DEFAULT_KUBECONFIG).expanduser()
    try:
        access = read_service_account(source, os.environ) if is_in_pod else read_kubeconfig(source)
    except (OSError, ValueError, yaml.YAMLError, msgspec.MsgspecError) as error:
        text = f"Kubernetes: {source}: {error}; give a kubeconfig, or run in a pod with a service account"
        raise ConfigError(text) from error
    return _connected(access)


@asynccontextmanager
async def _connected(access: Access) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(ssl=access.tls, socket_factory=_probed_socket)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield Client(http, access)


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def own_namespace(environ: Mapping[str, str], service_account: str = SERVICE_ACCOUNT) -> str:
    """Return the namespace of this process: $NAMESPACE, else its service account's; empty outside of a pod."""
    if environ.get("NAMESPACE"):
        return environ["NAMESPACE"]
    try:
        return (Path(service_account) / "namespace").read_text().strip()
    except OSError:
        return ""


def own_identity(environ: Mapping[str, str]) -> str:
    """Return $POD_NAME, else a name that no other process has."""
    return environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4()}"
