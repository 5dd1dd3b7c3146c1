"""How to get at the Kubernetes API: by a kubeconfig, or as the service account of the pod that this process runs in."""

import logging
import os
import socket
import ssl
import uuid
from collections.abc import Mapping
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError as LightkubeError

from epp.exceptions import ConfigError
from epp.kubernetes.client import Client

# Seconds of silence until the first probe and between two of them, and how many may stay without an answer: a machine
# that is gone is noticed in half a minute. Not every system has them all.
_PROBES = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _PROBES.items() if hasattr(socket, name)),
]


def connect(kubeconfig: str = "", service_account: str = SERVICE_ACCOUNT) -> Client:
    """By a kubeconfig (`kubeconfig`, else $KUBECONFIG), else as the service account, else by ~/.kube/config.

    Nothing is asked of the API server yet. ConfigError when none of them is there, or the one to use is no good.
    """
    # At its usual level it would log every renewal of a lease.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        config = _find_config(kubeconfig or os.environ.get("KUBECONFIG", ""), service_account)
        return Client(_http_client(config), config.namespace)
    except KeyError as error:
        raise ConfigError(f"Kubernetes: {error} is missing in the kubeconfig or the environment") from error
    except (LightkubeError, yaml.YAMLError, msgspec.ValidationError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"Kubernetes: {error}; give a kubeconfig, or run in a pod with a service account") from error


def own_namespace(environ: Mapping[str, str], service_account: str = SERVICE_ACCOUNT) -> str:
    """The namespace that this process runs in: $NAMESPACE, else its service account's; nothing outside of a pod."""
    if environ.get("NAMESPACE"):
        return environ["NAMESPACE"]
    try:
        return (Path(service_account) / "namespace").read_text().strip()
    except OSError:
        return ""


def own_identity(environ: Mapping[str, str]) -> str:
    """$POD_NAME, else a name that no other process has."""
    return environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4()}"


def _find_config(kubeconfig: str, service_account: str) -> SingleConfig:
    if kubeconfig:
        found = KubeConfig.from_file(kubeconfig)
    elif Path(service_account).exists():
        found = KubeConfig.from_service_account(service_account)
    else:
        found = KubeConfig.from_file(DEFAULT_KUBECONFIG)
    config = found.get()
    if config is None:
        raise ConfigError("Kubernetes: the kubeconfig names no current context")
    return config


def _http_client(config: SingleConfig) -> httpx2.AsyncClient:
    user = config.user or User()
    verify: ssl.SSLContext = verify_cluster(config.cluster, user, config.abs_file)
    return httpx2.AsyncClient(
        base_url=config.cluster.server,
        auth=user_auth(user),
        transport=httpx2.AsyncHTTPTransport(verify=verify, socket_options=_KEEPALIVE),
    )
