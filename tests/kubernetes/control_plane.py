"""A real Kubernetes control plane on loopback: etcd, the API server, and further parts that a test starts."""

import json
import secrets
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from headroom.processes.ports import free_port
from tests.go_programs import NoProgramError
from tests.kubernetes.binaries import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, command_of
from tests.live import PATIENCE_S, until

CRDS = Path(__file__).parent / "crds.yaml"


class ApiError(Exception):
    """The API server's refusal, with its HTTP `status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class ControlPlane:
    """An API server with this project's CRDs, and an admin with all rights: `with ControlPlane(folder) as plane:`.

    `users` maps names to groups; each user gets a token. `api_server_flags` are added to the API server's flags.
    """

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, Sequence[str]] | None = None,
        # Without a controller manager nothing creates the service accounts that pods need.
        api_server_flags: Sequence[str] = ("--disable-admission-plugins=ServiceAccount",),
    ) -> None:
        self._folder = folder
        self._api_server_flags = api_server_flags
        self._users = {"admin": ("system:masters",), **(users or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.tokens = {name: secrets.token_hex(16) for name in self._users}
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = folder / "certificates" / "apiserver.crt"
        self._etcd_url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        try:
            self._write_credentials()
            self._start_etcd()
            self.start_api_server()
            self.apply(CRDS.read_text())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every part, etcd last."""
        for part in reversed(list(self._processes)):
            self.end(part)

    def run(self, part: str, *flags: str) -> None:
        """Start a part of the control plane, such as kube-scheduler. Write its output to `part`.log.

        Skip the test if the part is missing.
        """
        if part in self._processes:
            self.end(part)
        try:
            command = command_of(part)
        except NoProgramError as error:
            pytest.skip(str(error))
        with (self._folder / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen([*command, *flags], stdout=log, stderr=log)

    def end(self, part: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self._processes.pop(part)
        process.send_signal(how)
        process.wait()

    def start_api_server(self) -> None:
        """Start the API server and wait until it is ready. After `end(API_SERVER)` it still has all objects of etcd."""
        keys = self._folder / "service-accounts.pem"
        self.run(
            API_SERVER,
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.certificate.parent}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}",
            f"--service-account-signing-key-file={keys}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            *self._api_server_flags,
        )
        until(lambda: self._alive(API_SERVER) and self._is_ready())

    def start_controller_manager(self, *flags: str) -> None:
        """Start it with the admin's rights. Its garbage collector removes pods of absent nodes (`--controllers`)."""
        keys, port = self._folder / "service-accounts.pem", free_port()
        root = f"--root-ca-file={self.certificate}"
        self.run(
            CONTROLLER_MANAGER,
            *self._as_admin(port),
            f"--service-account-private-key-file={keys}",
            root,
            *flags,
        )
        until(lambda: self._alive(CONTROLLER_MANAGER) and _listens(port))

    def start_scheduler(self, *flags: str) -> None:
        """Start it with the admin's rights."""
        port = free_port()
        self.run(SCHEDULER, *self._as_admin(port), *flags)
        until(lambda: self._alive(SCHEDULER) and _listens(port))

    def _as_admin(self, port: int) -> list[str]:
        kubeconfig = self.kubeconfig()
        purposes = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        access = [f"--{purpose}={kubeconfig}" for purpose in purposes]
        return [*access, "--bind-address=127.0.0.1", f"--secure-port={port}"]

    def kubeconfig(self, token: str = "", url: str = "") -> Path:
        """Write a kubeconfig for the owner of `token`, by default the admin. `url` replaces the API server's own."""
        path = self._folder / f"kubeconfig-{secrets.token_hex(4)}.yaml"
        cluster = {"server": url or self.url, "certificate-authority": str(self.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self.tokens["admin"]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json", token: str = "") -> Any:
        """Call as the owner of `token`, by default the admin. Return the decoded answer. Raise ApiError if refused."""
        headers = {"Authorization": f"Bearer {token or self.tokens['admin']}", "Content-Type": content}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310
        context = ssl.create_default_context(cafile=self.certificate)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S, context=context) as response:  # noqa: S310
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode()) from error
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def service_account_token(self, namespace: str, name: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token: str = self.call("POST", path, request)["status"]["token"]
        return token

    def apply(self, manifests: str) -> None:
        """Create or change the objects in YAML documents. Wait until resource definitions take effect."""
        kinds = {}
        for document in filter(None, yaml.safe_load_all(manifests)):
            path = _path_of(document)
            self.call("PATCH", f"{path}?fieldManager=test&force=true", document, content="application/apply-patch+yaml")
            if document["kind"] == "CustomResourceDefinition":
                spec = document["spec"]
                kinds[f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"] = path
        for listing in kinds:
            until(lambda listing=listing: self._answers(listing))  # type: ignore[misc]

    def compact(self) -> None:
        """Make etcd forget all history, so that no watch can resume from it."""
        revision = self._etcd("range", {"key": "AA=="})["header"]["revision"]
        self._etcd("compaction", {"revision": revision, "physical": True})

    def _etcd(self, method: str, body: Any) -> Any:
        request = urllib.request.Request(f"{self._etcd_url}/v3/kv/{method}", json.dumps(body).encode())  # noqa: S310
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
            return json.load(response)

    def _start_etcd(self) -> None:
        peers = f"http://127.0.0.1:{free_port()}"
        self.run(
            ETCD,
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )

    def _write_credentials(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self._folder / "service-accounts.pem").write_bytes(pem)
        lines = (f'{self.tokens[name]},{name},{name},"{",".join(groups)}"\n' for name, groups in self._users.items())
        (self._folder / "tokens.csv").write_text("".join(lines))

    def _alive(self, part: str) -> bool:
        code = self._processes[part].poll()
        assert code is None, f"{part} ended with {code}: {(self._folder / f'{part}.log').read_text()[-2000:]}"
        return True

    def _is_ready(self) -> bool:
        return self.certificate.exists() and self._answers("/readyz")

    def _answers(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except (ApiError, OSError):
            return False
        return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _path_of(manifest: Mapping[str, Any]) -> str:
    """Return the API path of a manifest's object."""
    version, metadata = manifest["apiVersion"], manifest["metadata"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    kind = manifest["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{base}{namespace}/{plural}/{metadata['name']}"
