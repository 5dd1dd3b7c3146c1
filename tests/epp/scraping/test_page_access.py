"""Metrics pages are read over TLS from verified servers only, and with the token of a file."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from epp.exceptions import ConfigError
from epp.pool.endpoint_list import parse_file
from epp.pool.pool import Pool
from epp.pool.sources import read_endpoints
from epp.scheduling.snapshot import Endpoint
from epp.scraping.page_access import PageAccess
from serving.token_file import TokenError
from tests.epp.scraping.pages import PAGE, Answer, http, page, serving
from tests.epp.scraping.test_scrape import build_pool, fresh, running, until
from tests.serving.authority import Authority, server_context


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="headroom.epp.scrape"):
        yield caplog


def behind(*tokens: str) -> Answer:
    """Return a handler that gives the page only to requests with one of the tokens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            knows = any(f"\r\nAuthorization: Bearer {token}\r\n".encode() in head for token in tokens)
            writer.write(http(PAGE.encode()) if knows else http(b"", "HTTP/1.1 401 Unauthorized"))

    return serve


def pool_of(address: str, server_name: str = "", metrics_address: str = "") -> Pool:
    pool = build_pool()
    pool.replace_endpoints([Endpoint("a", address, {}, metrics_address, server_name)])
    return pool


async def reason(pool: Pool, **settings: Any) -> str:
    """Return why an endpoint's page can't be read. The scraper logs this text when the metrics are stale."""
    async with running(pool, **settings) as scraper:
        await until(lambda: scraper.counts.failed > 0)
        assert scraper.counts.pages == 0
        [target] = scraper._targets.values()
        return str(target.last_error)


async def test_a_numeric_address_is_verified_by_the_server_s_name(tmp_path: Path) -> None:
    authority = Authority()
    access = PageAccess("https", ca_file=authority.write_ca(tmp_path / "ca.crt"))
    folder = authority.issue(tmp_path / "server", names=(x509.DNSName("gpu1.example"),))
    hosts: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            hosts.append(head.split(b"\r\nHost: ")[1].split(b"\r\n")[0])
            writer.write(http(PAGE.encode()))

    async with serving(serve, ssl=server_context(folder)) as address:
        async with running(pool := pool_of(address, "gpu1.example"), access=access) as scraper:
            await until(lambda: scraper.counts.pages > 1)
            assert fresh(pool) == {address}
        assert hosts[0] == f"gpu1.example:{address.rpartition(':')[2]}".encode()
        async with running(pool := pool_of(address), access=access) as scraper:
            await until(lambda: scraper.counts.failures["connect"] > 0)
            assert not fresh(pool)


async def test_a_metrics_host_keeps_its_name(tmp_path: Path) -> None:
    authority = Authority()
    access = PageAccess("https", ca_file=authority.write_ca(tmp_path / "ca.crt"))
    folder = authority.issue(tmp_path / "server", names=(x509.DNSName("localhost"),))
    async with serving(page, ssl=server_context(folder)) as address:
        port = address.rpartition(":")[2]
        async with running(pool_of("127.0.0.1:1", metrics_address=f"localhost:{port}"), access=access) as scraper:
            await until(lambda: scraper.counts.pages > 1)


def test_names_of_an_endpoints_file_stay_known(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(
        "endpoints:\n- {address: localhost, port: 1}\n- {address: 127.0.0.1, port: 2, serverName: gpu2}\n"
        "- {address: 127.0.0.1, port: 3}\n"
    )
    assert [one.server_name for one in read_endpoints(file)] == ["localhost", "gpu2", ""]
    with pytest.raises(ConfigError, match=r"endpoints\[0\]\.serverName"):
        parse_file(b"endpoints: [{address: 127.0.0.1, port: 1, serverName: 'a b'}]")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another authority", "--model-server-metrics-ca-file names the file of its CA"),
        ("expired", "its certificate has expired: renew it"),
        ("another name", "its certificate is for another name"),
        ("no TLS", "it doesn't speak TLS: expected http"),
    ],
)
async def test_a_refused_server_is_explained(case: str, said: str, tmp_path: Path) -> None:
    authority = Authority()
    names = (x509.DNSName("elsewhere" if case == "another name" else "localhost"),)
    valid_for = timedelta(hours=-1 if case == "expired" else 1)
    context = server_context(authority.issue(tmp_path / "server", valid_for, names))
    trusted = Authority("another") if case == "another authority" else authority
    access = PageAccess("https", ca_file=trusted.write_ca(tmp_path / "ca.crt"))
    answer = page
    if case == "no TLS":

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(http(b"", "HTTP/1.1 400 Bad Request"))

    async with serving(answer, ssl=None if case == "no TLS" else context) as address:
        assert said in await reason(pool_of(address, "localhost"), access=access)


async def test_plain_http_at_a_port_of_tls_is_explained(tmp_path: Path) -> None:
    context = server_context(Authority().issue(tmp_path / "server"))
    async with serving(page, ssl=context) as address:
        said = await reason(pool_of(address))
    assert "if the server speaks TLS, set --model-server-metrics-scheme=https" in said


async def test_a_page_behind_a_key_is_read_with_the_token_which_may_change(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("right-token\n")
    access = PageAccess(token_file=str(file))
    async with serving(behind("right-token")) as address, running(pool := pool_of(address), access=access) as scraper:
        await until(lambda: scraper.counts.pages > 1)
        assert scraper.counts.failed == 0
        [target] = scraper._targets.values()
        file.write_text("another-token\n")
        # The connection is open all the time.
        await until(lambda: scraper.counts.failures["status"] > 0)
        assert "refuses the token of --model-server-metrics-token-file" in str(target.last_error)
        file.write_text("right-token\n")
        before = scraper.counts.pages
        await until(lambda: scraper.counts.pages > before)
        assert fresh(pool) == {address}
        assert "right-token" not in f"{target.address!r} {log.text}"


async def test_a_401_without_a_token_names_the_flag() -> None:
    async with serving(behind("one")) as address:
        said = await reason(pool_of(address))
    assert said == "HTTP status 401: --model-server-metrics-token-file names a file with the server's key"


async def test_a_renewed_ca_file_is_read(tmp_path: Path) -> None:
    first, second, file = Authority("first"), Authority("second"), tmp_path / "ca.crt"
    access = PageAccess("https", ca_file=first.write_ca(file))
    context = server_context(second.issue(tmp_path / "server"))
    async with serving(page, ssl=context) as address, running(pool_of(address), access=access) as scraper:
        await until(lambda: scraper.counts.failures["connect"] > 0)
        second.write_ca(file)
        await until(lambda: scraper.counts.pages > 0)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model-server-metrics-ca-file: can't read"):
        PageAccess("https", ca_file=str(tmp_path / "none"))
    with pytest.raises(TokenError, match="--model-server-metrics-token-file: can't read"):
        PageAccess(token_file=str(tmp_path / "none"))


def test_files_that_help_little_are_warned_of(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    PageAccess("http", ca_file=Authority().write_ca(tmp_path / "ca.crt"))
    PageAccess("https", token_file=str(token))
    first, second = (record.getMessage() for record in log.records)
    assert first == "--model-server-metrics-ca-file has no effect: --model-server-metrics-scheme is http"
    assert "certificates aren't verified" in second
    assert "secret" not in second
