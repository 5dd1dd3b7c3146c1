"""Read where the API server is and how to log in, from a kubeconfig or from a pod's service account.

The format is https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Not supported: proxies, impersonation,
auth providers, and plugins that print a certificate instead of a token.

The functions raise OSError, ValueError, yaml.YAMLError or msgspec.MsgspecError for what is absent or can't be used.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from epp.kubernetes import credentials
from epp.kubernetes.credentials import Credentials, ExecPlugin

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """One API server. `server` is its URL, and `namespace` is the default one."""

    server: str
    namespace: str
    credentials: Credentials
    tls: ssl.SSLContext


class _Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False


class _UserEntry(msgspec.Struct, frozen=True, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    exec: ExecPlugin | None = None
    auth_provider: object = None


class _Context(msgspec.Struct, frozen=True):
    cluster: str
    user: str | None = None
    namespace: str | None = None


class _NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: _UserEntry


class _NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: _Context


class _Kubeconfig(msgspec.Struct, frozen=True, rename="kebab"):
    clusters: list[_NamedCluster]
    contexts: list[_NamedContext]
    users: list[_NamedUser] | None = None
    current_context: str | None = None


def read_kubeconfig(path: Path) -> Access:
    """Read the current context. Paths in the file are relative to its folder."""
    config = msgspec.convert(yaml.safe_load(path.read_bytes()), _Kubeconfig)
    if not config.current_context:
        raise ValueError("No current context set")
    context = _find({named.name: named.context for named in config.contexts}, config.current_context, "Context")
    cluster = _find({named.name: named.cluster for named in config.clusters}, context.cluster, "Cluster")
    if not cluster.server.startswith(("https://", "http://")):
        raise ValueError(f"server '{cluster.server}' is no http or https URL")
    users = {named.name: named.user for named in config.users or ()}
    user = _find(users, context.user, "User") if context.user else _UserEntry()
    tls = _tls(cluster, path.parent)
    _load_client_certificate(tls, user, path.parent)
    return Access(cluster.server, context.namespace or "default", _credentials(user, path.parent), tls)


def read_service_account(folder: Path, environ: Mapping[str, str]) -> Access:
    """Read the folder that the kubelet mounts into a pod, and the variables that it sets there."""
    try:
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    except KeyError as error:
        raise ValueError(f"{error} is missing in the environment") from error
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=(folder / "namespace").read_text().strip(),
        credentials=credentials.from_token_file(_existing(folder / "token")),
        tls=ssl.create_default_context(cafile=_existing(folder / "ca.crt")),
    )


def _find(named: Mapping[str, T], name: str, kind: str) -> T:
    if name not in named:
        raise ValueError(f"{kind} '{name}' not found")
    return named[name]


def _credentials(user: _UserEntry, folder: Path) -> Credentials:
    if user.token_file:
        return credentials.from_token_file(folder / user.token_file)
    if user.token:
        return credentials.from_token(user.token)
    if user.exec:
        return credentials.from_plugin(user.exec)
    if user.username and user.password:
        return credentials.from_password(user.username, user.password)
    if user.auth_provider:
        raise ValueError("auth-provider is not supported; use an exec plugin")
    return credentials.anonymous()


def _tls(cluster: _Cluster, folder: Path) -> ssl.SSLContext:
    if cluster.certificate_authority_data:
        return ssl.create_default_context(cadata=_decoded(cluster.certificate_authority_data).decode())
    if cluster.certificate_authority:
        return ssl.create_default_context(cafile=_existing(folder / cluster.certificate_authority))
    context = ssl.create_default_context()
    if cluster.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_client_certificate(context: ssl.SSLContext, user: _UserEntry, folder: Path) -> None:
    with ExitStack() as files:

        def file(data: str | None, name: str | None) -> str | None:
            """Return the path of a file, because the ssl module reads certificates and keys from files only."""
            if data:
                written = files.enter_context(tempfile.NamedTemporaryFile())
                written.write(_decoded(data))
                written.flush()
                return written.name
            return str(_existing(folder / name)) if name else None

        if not (certificate := file(user.client_certificate_data, user.client_certificate)):
            return
        try:
            context.load_cert_chain(certificate, file(user.client_key_data, user.client_key))
        except ssl.SSLError as error:
            raise ValueError(f"the client's certificate and key can't be used: {error}") from error


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError as error:
        raise ValueError(f"certificate or key data: {error}") from error


def _existing(path: Path) -> Path:
    """Return the path. FileNotFoundError names the file here; the one of the ssl module does not."""
    path.stat()
    return path
