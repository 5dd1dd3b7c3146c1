import asyncio
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.exceptions import ConfigError
from epp.pool.addresses import join_address, split_address
from epp.pool.pool import Pool
from epp.pool.prefix_index import PrefixIndex
from epp.pool.sources import EndpointsFile, parse_endpoints, read_endpoints
from epp.scheduling.snapshot import Endpoint
from tests.live import PATIENCE_S


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.yaml"


# Addresses


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_round_trips(ip: object, port: int) -> None:
    assert split_address(join_address(str(ip), port)) == (str(ip), port)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", ":1", "a:", "a:0", "a:65536", "a:99999999999999", "a:1x", "a:-1", "a:٣", "::1:80", "fd00::1:80",
        "[a]:80", "[10.0.0.1]:80", "[::1]", "10.0.0:80", "10.0.0.256:80", "a b:80", "-a:80", "a/b:80", "http://a:80",
        "a..b:80",
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|brackets"):
        split_address(text)


# The list on the command line


def test_endpoints_on_the_command_line_may_have_names() -> None:
    endpoints = parse_endpoints("a=10.0.0.1:8000, 10.0.0.2:8000,b=[fd00::1]:80,")
    assert [(endpoint.name, endpoint.address) for endpoint in endpoints] == [
        ("a", "10.0.0.1:8000"),
        ("10.0.0.2:8000", "10.0.0.2:8000"),
        ("b", "[fd00::1]:80"),
    ]


def test_a_host_name_on_the_command_line_is_resolved() -> None:
    (endpoint,) = parse_endpoints("localhost:8000")
    assert endpoint.name == "localhost:8000"
    assert endpoint.address in ("127.0.0.1:8000", "[::1]:8000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=10.0.0.1:8000,10.0.0.1:x", r"'10\.0\.0\.1:x'.*port between 1 and 65535"),
        ("10.0.0.1", r"'10\.0\.0\.1': expected \[name=\]host:port"),
        ("a=10.0.0.1:1,b=10.0.0.2:1,c=10.0.0.1:1", r"endpoints 1 and 3 .* address 10\.0\.0\.1:1"),
        ("a=10.0.0.1:1,a=10.0.0.2:1", "endpoints 1 and 2 .* name a"),
        ("nowhere.invalid:8000", "nowhere.invalid:8000: the host name can't be resolved"),
    ],
)
def test_the_error_of_a_wrong_list_names_the_part(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_endpoints(text)


# The file


def test_a_file_gives_all_fields_of_an_endpoint(file: Path) -> None:
    file.write_text("""
endpoints:
  - name: a
    address: 10.0.0.1
    port: 8000
    labels: {role: decode}
  - {address: "fd00::1", port: 8000, metricsPort: 9000}
  - {address: "[fd00::2]", port: 8000}
""")
    assert read_endpoints(file) == (
        Endpoint("a", "10.0.0.1:8000", {"role": "decode"}),
        Endpoint("[fd00::1]:8000", "[fd00::1]:8000", {}, "[fd00::1]:9000"),
        Endpoint("[fd00::2]:8000", "[fd00::2]:8000"),
    )


def test_a_file_of_llm_d_is_understood(file: Path) -> None:
    file.write_text("""
endpoints:
  - name: vllm-0
    namespace: default
    address: "10.0.0.1"
    port: "8000"
    metricsHost: "10.0.1.1:9000"
  - name: vllm-0
    namespace: other
    address: "10.0.0.2"
    port: "8000"
""")
    assert read_endpoints(file) == (
        Endpoint("vllm-0", "10.0.0.1:8000", {}, "10.0.1.1:9000"),
        Endpoint("other/vllm-0", "10.0.0.2:8000"),
    )


def test_a_file_may_be_json(file: Path) -> None:
    file.write_text(json.dumps({"endpoints": [{"address": "10.0.0.1", "port": 8000}]}))
    assert [endpoint.address for endpoint in read_endpoints(file)] == ["10.0.0.1:8000"]


def test_an_endpoint_with_an_unresolvable_name_is_left_out(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("endpoints: [{address: nowhere.invalid, port: 1}, {address: localhost, port: 2, metricsPort: 3}]")
    (endpoint,) = read_endpoints(file)
    host, _ = split_address(endpoint.address)
    assert (endpoint.name, endpoint.metrics_address) == ("localhost:2", join_address(host, 3))
    assert "nowhere.invalid:1 is left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("endpoints: 3", "array"),
        ("endpoints:", "array"),
        ("", "object"),
        ("a: [", r"endpoints\.yaml: not YAML: .*line [12]"),
        ("x: 1", "endpoints"),
        ("endpoints:\n- {address: 10.0.0.1, port: 1}\n- {address: a}", r"line 3: .*`port`.*endpoints\[1\]"),
        ("endpoints:\n- {address: 10.0.0.1, port: 1}\n\n- {address: 10.0.0.1, port: '1'}", "lines 2 and 4: .* address"),
        (
            "endpoints:\n- {name: a, address: a.b, port: 1}\n- {name: a, address: b.c, port: 1}",
            "lines 2 and 3: .* name a",
        ),
        ("endpoints: [{address: 10.0.0.1, port: 70000}]", r"line 1: endpoints\[0\]\.port: '70000'.*65535"),
        ("endpoints: [{address: 10.0.0.1, port: true}]", r"line 1: .*endpoints\[0\]\.port"),
        ("endpoints: [{address: 10.0.0.1, port: 1, metricsPort: x}]", r"endpoints\[0\]\.metricsPort"),
        ("endpoints: [{address: 10.0.0.1, port: 1, metricsHost: x}]", r"endpoints\[0\]\.metricsHost"),
        ("endpoints: [{address: a, port: 1, metricsHost: 'x:1', metricsPort: 1}]", "exclude each other"),
        ("endpoints: [{address: 'a b', port: 1}]", r"endpoints\[0\]\.address: 'a b'"),
        ("endpoints: [{address: a, port: 1, weight: 2}]", "weight"),
        ("endpoints: [{address: a, port: 1, labels: {x: 1}}]", "labels"),
        ("endpoints: [{address: !!python/name:os.system x, port: 1}]", "not YAML"),
        ("[" * 100_000, "nested more than 32 deep"),
        ("- " * 100_000, "nested more than 32 deep"),
    ],
)
def test_the_error_of_a_wrong_file_names_line_and_field(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_endpoints(file)


def test_a_missing_or_too_large_file_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*endpoints\.yaml: No such file"):
        read_endpoints(file)
    with file.open("wb") as written:
        written.truncate((16 << 20) + 1)
    with pytest.raises(ConfigError, match="larger than"):
        read_endpoints(file)


def test_ten_thousand_endpoints_are_read(file: Path) -> None:
    entries = (f"- {{name: n{i}, address: 10.1.{i >> 8}.{i & 255}, port: 8000}}\n" for i in range(10_000))
    file.write_text("endpoints:\n" + "".join(entries))
    assert len(read_endpoints(file)) == 10_000


# Watching


def write(file: Path, text: str) -> None:
    """Replace the file atomically, like an editor or a mounted ConfigMap."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_a_watched_file_changes_the_pool_and_a_wrong_one_does_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(PrefixIndex(10), 60.0)
    write(file, "endpoints: [{name: a, address: 10.0.0.1, port: 8000, labels: {role: decode}}]")
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(EndpointsFile(file, pool, interval_s=0.01).run())
        await until(lambda: len(pool) == 1)
        assert list(pool.endpoints.values()) == [Endpoint("a", "10.0.0.1:8000", {"role": "decode"})]
        write(file, "endpoints: [{name: a}]")
        await until(lambda: "endpoints unchanged" in caplog.text)
        assert len(pool) == 1
        write(file, "endpoints: [{address: 10.0.0.1, port: 8000}, {address: 10.0.0.2, port: 8000}]")
        await until(lambda: len(pool) == 2)
        write(file, "endpoints: []")
        await until(lambda: len(pool) == 0)
        assert "0 endpoints in" in caplog.text
    task.cancel()


async def test_names_in_a_watched_file_are_resolved_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver is patched, because a test can't change the machine's own."""
    stands_for = {"vllm": "10.0.0.1"}

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if host not in stands_for:
            raise OSError("unknown")
        return [(2, 1, 6, "", (stands_for[host], 0))]

    monkeypatch.setattr("epp.pool.sources.socket.getaddrinfo", getaddrinfo)
    pool = Pool(PrefixIndex(10), 60.0)
    write(file, "endpoints: [{address: vllm, port: 80}, {address: 10.0.0.9, port: 80}]")
    task = asyncio.create_task(EndpointsFile(file, pool, interval_s=0.01, resolve_every_s=0.01).run())

    def addresses() -> set[str]:
        return {endpoint.address for endpoint in pool.endpoints.values()}

    await until(lambda: addresses() == {"10.0.0.1:80", "10.0.0.9:80"})
    stands_for["vllm"] = "10.0.0.2"
    await until(lambda: addresses() == {"10.0.0.2:80", "10.0.0.9:80"})
    del stands_for["vllm"]
    await until(lambda: addresses() == {"10.0.0.9:80"})
    task.cancel()


async def test_names_keep_their_addresses_while_dns_is_away(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"vllm": 0, "new": 0}
    is_away = False

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked[host] += 1
        if is_away:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(2, 1, 6, "", ("10.0.0.1" if host == "vllm" else "10.0.0.2", 0))]

    monkeypatch.setattr("epp.pool.sources.socket.getaddrinfo", getaddrinfo)
    pool = Pool(PrefixIndex(10), 60.0)
    write(file, "endpoints: [{address: vllm, port: 80}]")
    source = EndpointsFile(file, pool, interval_s=0.001, resolve_every_s=0.001)
    is_away = True
    write(file, "endpoints: [{address: vllm, port: 80}, {address: new, port: 80}]")
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(source.run())
        await until(lambda: asked["new"] > 5)
        assert [endpoint.address for endpoint in pool.endpoints.values()] == ["10.0.0.1:80"]
        is_away = False
        await until(lambda: len(pool) == 2)
    task.cancel()
    assert [line for line in caplog.messages if "DNS" in line] == [
        "DNS doesn't answer; host names that were known keep their addresses",
        "DNS answers again",
    ]
