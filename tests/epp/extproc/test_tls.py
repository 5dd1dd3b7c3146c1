"""Test ext_proc over TLS: the fronts' certificates, and their renewal."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from epp.exceptions import ConfigError
from epp.extproc.front import PATH, Front, FrontSettings, start
from epp.extproc.health import Health
from epp.extproc.tls import Certificates, self_signed
from tests.epp.extproc.exchanges import Book
from tests.live import PATIENCE_S

Pair = tuple[bytes, bytes]


@pytest.fixture(params=["http2", "grpcio"])
def settings(request: pytest.FixtureRequest) -> FrontSettings:
    return FrontSettings(
        host="127.0.0.1", port=0, health_port=None, certificates=None, health_checking=False, front=request.param
    )


@asynccontextmanager
async def served(settings: FrontSettings, certificates: Certificates) -> AsyncIterator[Front]:
    front = await start(replace(settings, certificates=certificates), Book().new_exchange, Health(()))
    try:
        yield front
    finally:
        await front.stop(0)


async def connection_details(front: Front, context: ssl.SSLContext | None = None) -> tuple[str, str | None, str]:
    """Return a new connection's certificate, ALPN protocol and TLS version."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=context)
    connection = writer.get_extra_info("ssl_object")
    found = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))
    writer.close()
    return found, connection.selected_alpn_protocol(), connection.version()


async def echo(front: Front, certificate: bytes, client: Pair | None = None) -> bytes:
    """Send a message from a client that trusts only this certificate, and presents `client`. Return the answer."""
    credentials = grpc.ssl_channel_credentials(certificate, *(client or (None, None)))
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{front.port}", credentials, options=options) as channel:
        call = channel.stream_stream(PATH)(iter([b"hello"]), timeout=PATIENCE_S)
        answer: bytes = await call.read()
        return answer


def write_pair(folder: Path, pair: Pair) -> None:
    (folder / "tls.key").write_bytes(pair[0])
    (folder / "tls.crt").write_bytes(pair[1])


async def test_without_a_folder_the_certificate_is_self_signed(settings: FrontSettings) -> None:
    certificates = Certificates()
    async with served(settings, certificates) as front:
        assert await echo(front, certificates.pair[1]) == b"hello"
        assert (await connection_details(front))[:2] == (certificates.pair[1].decode(), "h2")


async def test_the_fronts_use_the_certificate_in_the_folder(settings: FrontSettings, tmp_path: Path) -> None:
    pair = self_signed()
    write_pair(tmp_path, pair)
    async with served(settings, Certificates(str(tmp_path))) as front:
        assert await echo(front, pair[1]) == b"hello"


async def test_only_clients_with_a_certificate_of_the_ca_are_admitted(settings: FrontSettings, tmp_path: Path) -> None:
    client, stranger = self_signed(), self_signed()
    file = tmp_path / "ca.crt"
    file.write_bytes(client[1])
    certificates = Certificates(client_ca_file=str(file))
    async with served(settings, certificates) as front:
        assert await echo(front, certificates.pair[1], client) == b"hello"
        for pair in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await echo(front, certificates.pair[1], pair)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_ca_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    with pytest.raises(ConfigError, match="--client-ca-file: can't read"):
        Certificates(client_ca_file=str(file))
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="holds no certificates in PEM"):
        Certificates(client_ca_file=str(file))


async def test_a_renewed_secret_is_reloaded(settings: FrontSettings, tmp_path: Path) -> None:
    """Like the kubelet, the test replaces one link, `..data`, through which all files of the Secret are linked."""
    first, second = self_signed(), self_signed()
    for name, pair in (("1", first), ("2", second)):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name, pair)
    (tmp_path / "..data").symlink_to("1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    certificates = Certificates(str(tmp_path))
    async with served(settings, certificates) as front:
        assert (await connection_details(front))[0] == first[1].decode()
        (tmp_path / "..next").symlink_to("2")
        os.replace(tmp_path / "..next", tmp_path / "..data")
        certificates.refresh()
        assert (await connection_details(front))[0] == second[1].decode()
        assert await echo(front, second[1]) == b"hello"


@pytest.mark.parametrize("broken", ["other key", "no certificate", "missing", "encrypted"])
async def test_a_broken_new_pair_is_logged_and_the_old_one_stays(
    settings: FrontSettings, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = self_signed(), self_signed()
    write_pair(tmp_path, first)
    certificates = Certificates(str(tmp_path))
    async with served(settings, certificates) as front:
        spoil(tmp_path, second, broken)
        certificates.refresh()
        assert str(tmp_path) in caplog.text
        assert (await connection_details(front))[0] == first[1].decode()
        write_pair(tmp_path, second)
        certificates.refresh()
        assert (await connection_details(front))[0] == second[1].decode()


def spoil(folder: Path, pair: Pair, how: str) -> None:
    if how == "other key":
        (folder / "tls.key").write_bytes(pair[0])
    elif how == "no certificate":
        (folder / "tls.crt").write_bytes(b"no certificate")
    elif how == "missing":
        (folder / "tls.key").unlink()
    else:
        write_pair(folder, (encrypted(pair[0]), pair[1]))


def encrypted(key: bytes) -> bytes:
    private = load_pem_private_key(key, None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


async def test_the_folder_is_polled(tmp_path: Path) -> None:
    first, second = self_signed(), self_signed()
    write_pair(tmp_path, first)
    certificates = Certificates(str(tmp_path))
    watching = asyncio.create_task(certificates.watch(poll_s=0.01))
    write_pair(tmp_path, second)
    async with asyncio.timeout(PATIENCE_S):
        while certificates.pair != second:
            await asyncio.sleep(0.01)
    watching.cancel()


@pytest.mark.parametrize("broken", ["other key", "no certificate", "missing", "encrypted"])
def test_a_broken_pair_is_refused_at_the_start(tmp_path: Path, broken: str) -> None:
    write_pair(tmp_path, self_signed())
    spoil(tmp_path, self_signed(), broken)
    with pytest.raises(ConfigError, match=f"--cert-path.*{tmp_path}"):
        Certificates(str(tmp_path))


async def test_versions_and_ciphers_can_be_chosen() -> None:
    settings = FrontSettings(host="127.0.0.1", port=0, health_port=None, certificates=None, health_checking=False)
    certificates = Certificates(cipher_suites="TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    async with served(settings, certificates) as front:
        assert (await connection_details(front))[2] == "TLSv1.3"
        # Some gateways offer no ALPN protocol in the handshake.
        assert (await connection_details(front, old))[1:] == (None, "TLSv1.2")
        old.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connection_details(front, old)
    async with served(settings, Certificates(min_version="VersionTLS13")) as front:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connection_details(front, old)


async def test_grpcio_refuses_a_minimum_tls_version() -> None:
    settings = FrontSettings(
        host="127.0.0.1",
        port=0,
        health_port=None,
        certificates=Certificates(min_version="VersionTLS13"),
        health_checking=False,
        front="grpcio",
    )
    with pytest.raises(ConfigError, match="--tls-min-version"):
        await start(settings, Book().new_exchange, Health(()))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_version": "1.2"}, "--tls-min-version: '1.2' is unknown; use one of VersionTLS12, VersionTLS13"),
        ({"cipher_suites": "RC4"}, "--tls-cipher-suites: RC4 unknown; known are TLS_ECDHE"),
    ],
)
def test_an_unknown_tls_setting_is_refused(settings: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Certificates(**settings)


def test_uvloop_reloads_a_certificate_too(tmp_path: Path) -> None:
    """The picker's event loop has its own TLS implementation."""
    first, second = self_signed(), self_signed()

    async def follow() -> None:
        settings = FrontSettings(host="127.0.0.1", port=0, health_port=None, certificates=None, health_checking=False)
        write_pair(tmp_path, first)
        certificates = Certificates(str(tmp_path))
        async with served(settings, certificates) as front:
            assert (await connection_details(front))[0] == first[1].decode()
            write_pair(tmp_path, second)
            certificates.refresh()
            assert (await connection_details(front))[0] == second[1].decode()
            assert await echo(front, second[1]) == b"hello"

    uvloop.run(follow())
