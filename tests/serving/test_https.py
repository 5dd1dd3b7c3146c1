"""Tests of trainer and predictor processes over TLS: which clients connect, and the replacement of the certificate."""

import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from headroom.processes.ports import free_port
from model_store import open_store
from predictor.protocol import inference_pb2 as pb
from tests.live import PATIENCE_S, until
from tests.predictor.models import pair
from tests.serving.authority import Authority

pytestmark = pytest.mark.slow

SERVERS = ("trainer", "predictor")


@dataclass(frozen=True)
class Server:
    port: int
    grpc_port: int
    log: Path

    def health(self, context: ssl.SSLContext) -> int:
        """Return the status of the health endpoint; raise OSError if the TLS handshake fails."""
        try:
            url = f"https://127.0.0.1:{self.port}/healthz"
            with urllib.request.urlopen(url, timeout=PATIENCE_S, context=context) as response:
                return int(response.status)
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, OSError) else error from error

    def is_answering(self, authority: Authority) -> bool:
        try:
            return self.health(authority.client()) == 200
        except OSError:
            return False

    def is_live_by_grpc(self, authority: Authority) -> bool:
        credentials = grpc.ssl_channel_credentials(authority.pem)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"127.0.0.1:{self.grpc_port}", credentials, options) as channel:
            method = "/inference.GRPCInferenceService/ServerLive"
            ask = channel.unary_unary(method, pb.ServerLiveRequest.SerializeToString, pb.ServerLiveResponse.FromString)
            return bool(ask(pb.ServerLiveRequest(), timeout=PATIENCE_S).live)


@contextmanager
def started(module: str, folder: Path, certificates: Path) -> Iterator[Server]:
    server = Server(free_port(), free_port(), folder / f"{module}.log")
    open_store(str(folder / "store")).publish(pair(2.0))
    command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(server.port)]
    command += ["--model-store", str(folder / "store"), "--cert-path", str(certificates)]
    command += ["--grpc-port", str(server.grpc_port)] if module == "predictor" else []
    with server.log.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield server
        finally:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, server.log.read_text()


@pytest.mark.parametrize("module", SERVERS)
def test_a_server_uses_the_folders_certificate_and_then_its_replacement(module: str, tmp_path: Path) -> None:
    authority, next_authority = Authority("first"), Authority("second")
    folder = authority.issue(tmp_path / "certificates")
    with started(module, tmp_path, folder) as server:
        until(lambda: server.is_answering(authority))
        with pytest.raises(ssl.SSLCertVerificationError):
            server.health(next_authority.client())
        with pytest.raises(OSError, match=r"."):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=PATIENCE_S)
        next_authority.issue(folder)
        until(lambda: server.is_answering(next_authority))
        with pytest.raises(ssl.SSLCertVerificationError):
            server.health(authority.client())
        (folder / "tls.key").write_text("no key")
        until(lambda: "can't be used; the old one stays" in server.log.read_text())
        assert server.is_answering(next_authority)


def test_grpc_uses_the_same_certificates(tmp_path: Path) -> None:
    authority, next_authority = Authority("first"), Authority("second")
    folder = authority.issue(tmp_path / "certificates")
    with started("predictor", tmp_path, folder) as server:
        until(lambda: server.is_answering(authority))
        assert server.is_live_by_grpc(authority)
        with pytest.raises(grpc.RpcError):
            server.is_live_by_grpc(next_authority)
        next_authority.issue(folder)
        until(lambda: server.is_answering(next_authority))
        assert server.is_live_by_grpc(next_authority)


def test_every_worker_uses_the_certificates(tmp_path: Path) -> None:
    authority = Authority()
    folder = authority.issue(tmp_path / "certificates")
    open_store(str(tmp_path / "store")).publish(pair(2.0))
    port = free_port()
    command = [sys.executable, "-m", "predictor", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--grpc-port", "0", "--model-store", str(tmp_path / "store"), "--cert-path", str(folder)]
    server = Server(port, 0, tmp_path / "log")
    with server.log.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: server.is_answering(authority))
            assert all(server.is_answering(authority) for _ in range(10))
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.mark.parametrize("module", SERVERS)
@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [("missing", "--cert-path: can't read {folder}/tls.crt: No such file"), ("mixed", "no usable pair of tls.crt")],
)
def test_an_unusable_folder_is_reported_in_one_line(module: str, spoilt: str, expected: str, tmp_path: Path) -> None:
    folder = Authority().issue(tmp_path / "certificates")
    if spoilt == "missing":
        (folder / "tls.crt").unlink()
    else:
        other = Authority().issue(tmp_path / "other")
        (folder / "tls.key").write_bytes((other / "tls.key").read_bytes())
    command = [sys.executable, "-m", module, "--port", str(free_port()), "--model-store", str(tmp_path)]
    result = subprocess.run(
        [*command, "--cert-path", str(folder)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 1
    assert expected.format(folder=folder) in result.stderr.splitlines()[-1]
    assert "PRIVATE KEY" not in result.stderr
