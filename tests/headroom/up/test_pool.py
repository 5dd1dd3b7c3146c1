"""URLs of model servers become addresses, or an error that names the URL."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from epp.pool.endpoint_list import ListedEndpoint, parse_file
from epp.scraping.engines import ENGINE_LABELS
from headroom.gateway import clusters
from headroom.gateway.server_tls import TrustFiles
from headroom.up.command import up
from headroom.up.pool import endpoints_file, is_tls, listed_places, places, with_engine


def test_names_are_resolved_and_kept_as_names() -> None:
    [first, second] = places(["http://localhost:8000", "http://[::1]:8001/"])
    assert (first.name, first.address) in (("localhost:8000", "127.0.0.1:8000"), ("localhost:8000", "[::1]:8000"))
    assert second.address == "[::1]:8001"


def test_the_picker_reads_what_is_written_for_it() -> None:
    first, second = ListedEndpoint("gpu1:8000", "10.0.0.1", 8000), ListedEndpoint("gpu2:8000", "::1", 8000)
    pool = [with_engine(first, "sglang"), with_engine(second, "")]
    first, second = parse_file(endpoints_file(pool).encode())
    assert (first.name, first.address, first.labels) == ("gpu1:8000", "10.0.0.1:8000", {ENGINE_LABELS[0]: "sglang"})
    assert (second.address, second.labels) == ("[::1]:8000", {})


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gpu1:8000", "is no URL of a server: expected http://HOST:PORT or https://HOST:PORT"),
        ("http://gpu1:8000/v1", "is no URL of a server: expected http://HOST:PORT"),
        ("ftp://gpu1:8000", "is no URL of a server: expected http://HOST:PORT"),
        ("http://no-such-host.invalid:8000", "the name no-such-host.invalid is unknown"),
        ("http://127.0.0.1:80000", "out of range"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str, problem: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        places([url])
    assert url in caught.value.message
    assert problem in caught.value.message


def test_a_server_is_named_once() -> None:
    with pytest.raises(click.UsageError, match=r"127\.0\.0\.1:8000 is named more than once"):
        places(["http://127.0.0.1:8000", "http://127.0.0.1:8000/"])


def test_https_has_its_port_and_keeps_the_name_that_certificates_must_have() -> None:
    [named, numbered] = places(["https://localhost", "https://127.0.0.1:8443"])
    assert (named.name, named.port, named.server_name) == ("localhost:443", 443, "localhost")
    assert numbered.server_name == "127.0.0.1"
    assert [one.server_name for one in parse_file(endpoints_file([named]).encode())] == ["localhost"]


def test_names_of_a_listed_server_are_known_too(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text(
        "endpoints: [{address: 127.0.0.1, port: 1, serverName: gpu1}, {address: localhost, port: 2},"
        " {address: 127.0.0.1, port: 3}]"
    )
    assert [one.server_name for one in listed_places(file)] == ["gpu1", "localhost", "127.0.0.1"]


def test_servers_are_all_reached_over_tls_or_none() -> None:
    assert is_tls(["https://a", "HTTPS://b"])
    assert not is_tls(["http://a"])
    with pytest.raises(click.UsageError, match="all https:// or all http://, but http://a and https://b differ"):
        is_tls(["http://a", "https://b"])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["http://127.0.0.1:1", "https://127.0.0.1:2"], "servers are all https:// or all http://"),
        (["https://127.0.0.1:1", "--server-tls"], "--server-tls is for --endpoints-file"),
        (["http://127.0.0.1:1", "--server-insecure"], "--server-insecure needs https:// URLS, or --server-tls"),
        (["--endpoints-file", "list", "--server-ca-file", "list"], "--server-ca-file needs https:// URLS"),
        (["https://127.0.0.1:1", "--server-ca-file", "list", "--server-insecure"], "accepts any certificate"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    flags: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("endpoints: [{address: 127.0.0.1, port: 1}]")
    done = CliRunner().invoke(up, [*flags, "--state", "state"])
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.replace("│", " ").split())


def test_envoy_never_trusts_a_ca_without_a_name(tmp_path: Path) -> None:
    files = TrustFiles(tmp_path / "by-name", tmp_path / "by-address")
    files.write("a CA", [])
    [secret] = json.loads(files.by_address.read_text())["resources"]
    assert secret["validation_context"]["match_typed_subject_alt_names"]
    files.write("a CA", ["10.0.0.1", "0:0::1"])
    [secret] = json.loads(files.by_address.read_text())["resources"]
    names = [one["matcher"]["exact"] for one in secret["validation_context"]["match_typed_subject_alt_names"]]
    assert names[:2] == ["10.0.0.1", "::1"]
    servers = [clusters.Server("10.0.0.1", 1, "10.0.0.1"), clusters.Server("10.0.0.2", 2, "gpu2")]
    [numbered, named] = json.loads(clusters.discovered(servers))["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert "hostname" not in numbered["endpoint"]
    assert numbered["metadata"]["filter_metadata"] == {"envoy.transport_socket_match": clusters.BY_ADDRESS}
    assert (named["endpoint"]["hostname"], "metadata" in named) == ("gpu2", False)
