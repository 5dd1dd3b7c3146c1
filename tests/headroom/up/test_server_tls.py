"""`headroom up` in front of servers behind TLS and a key: real Envoy, picker and TLS."""

import asyncio
import ipaddress
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headroom.processes.ports import free_ports
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.headroom.up.test_up import up
from tests.live import PATIENCE_S, live
from tests.serving.authority import Authority

pytestmark = pytest.mark.slow

KEY = "the-servers-key"
BODY = {"model": "m", "prompt": "hello", "max_tokens": 1}
BEARER = {"authorization": f"Bearer {KEY}"}


class Locked:
    """Answers 401 without the key, and notes the hosts that requests name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.hosts: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self.hosts.add(headers["host"])
            if headers.get("authorization") != BEARER["authorization"]:
                app = Response("", 401)
        await app(scope, receive, send)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def servers(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Locked, str]]]:
    """Serve two simulated servers: `named` with a certificate for gpu1.example, `numbered` for 127.0.0.1."""
    names = {
        "named": x509.DNSName("gpu1.example"),
        "numbered": x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    }
    folder = tmp_path_factory.mktemp("certificates")
    with ExitStack() as stack:
        found = {}
        for name, certified in names.items():
            config = Config(host="", port=0, name=name, model="m", hardware=PRESETS["fast"], speed_factor=40)
            app = Locked(create_app(config))
            certificate = authority.issue(folder / name, names=(certified,))
            found[name] = app, stack.enter_context(live(app, certificate=certificate))
        yield found


def listed(servers: dict[str, tuple[Locked, str]], file: Path) -> list[str]:
    """Write an endpoints file of the servers, and return the flags that name it."""
    ports = {name: int(url.rpartition(":")[2]) for name, (_, url) in servers.items()}
    entries: list[dict[str, Any]] = [{"address": "127.0.0.1", "port": port} for port in ports.values()]
    entries[list(ports).index("named")]["serverName"] = "gpu1.example"
    file.write_text(json.dumps({"endpoints": entries}))
    return ["--endpoints-file", str(file), "--server-tls"]


async def answer(session: aiohttp.ClientSession, port: int) -> tuple[int, str]:
    """Return a request's status, and the name of the server that answered."""
    async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=BODY, headers=BEARER) as response:
        return response.status, response.headers.get("x-inference-pod", "")


async def fresh(session: aiohttp.ClientSession, page_port: int) -> list[bool]:
    """Return for each endpoint whether the picker has its metrics."""
    async with session.get(f"http://127.0.0.1:{page_port}/debug/endpoints") as response:
        return [not one["stale"] for one in (await response.json())["endpoints"]]


async def test_servers_of_the_right_ca_get_requests_and_their_metrics_are_read(
    authority: Authority, servers: dict[str, tuple[Locked, str]], tmp_path: Path
) -> None:
    ports, ca, key, told = free_ports(2), tmp_path / "ca.crt", tmp_path / "key", list[str]()
    key.write_text(f"{KEY}\n")
    flags = [*listed(servers, tmp_path / "list"), "--embedded", "--server-key-file", str(key)]
    flags += ["--server-ca-file", Authority("another").write_ca(ca)]
    state = tmp_path / "state"
    async with up(flags, state, ports, told), aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        url = f"https://gpu1.example:{servers['named'][1].rpartition(':')[2]}"
        assert f"{url}: its certificate isn't trusted (unable to get local issuer certificate)" in told[0]
        assert "--server-ca-file names the file of its CA" in told[0]
        assert await answer(session, ports[0]) == (503, "")
        assert await fresh(session, ports[1]) == [False, False]

        # The file is corrected, and Envoy and picker follow it.
        authority.write_ca(ca)
        seen = set[str]()
        while seen != {"named", "numbered"}:
            status, name = await answer(session, ports[0])
            seen |= {name} if status == 200 else set()
        while await fresh(session, ports[1]) != [True, True]:
            pass
    assert "gpu1.example" in servers["named"][0].hosts, "a proxy in front of the server chooses by the Host"
    assert f"127.0.0.1:{ports[0]}" in servers["numbered"][0].hosts
    written = [file.read_text(errors="ignore") for file in state.rglob("*.log")]
    assert written
    assert not any(KEY in text for text in written)


async def test_urls_of_servers_and_any_certificate(servers: dict[str, tuple[Locked, str]], tmp_path: Path) -> None:
    """The clients' key is also the one for models and metrics."""
    ports, key, told = free_ports(2), tmp_path / "key", list[str]()
    key.write_text(KEY)
    urls = [url for _, url in servers.values()]
    flags = [*urls, "--embedded", "--api-key-file", str(key), "--server-insecure"]
    async with up(flags, tmp_path, ports, told), aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        assert told[0].count("vllm") == 2, "both were looked at"
        assert (await answer(session, ports[0]))[0] == 200
        while await fresh(session, ports[1]) != [True, True]:
            pass


async def test_certificates_for_another_host_are_refused(
    authority: Authority, servers: dict[str, tuple[Locked, str]], tmp_path: Path
) -> None:
    """Each server goes by the other one's name."""
    ports, key, told = free_ports(2), tmp_path / "key", list[str]()
    key.write_text(KEY)
    swapped = {"numbered": servers["named"], "named": servers["numbered"]}
    flags = [*listed(swapped, tmp_path / "list"), "--embedded", "--server-key-file", str(key)]
    flags += ["--server-ca-file", authority.write_ca(tmp_path / "ca.crt")]
    async with up(flags, tmp_path, ports, told), aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        assert "its certificate is for another name: IP address mismatch" in told[0]
        assert "its certificate is for another name: Hostname mismatch" in told[0]
        # Envoy tries both servers for each request.
        assert [(await answer(session, ports[0]))[0] for _ in range(4)] == [503] * 4
        assert await fresh(session, ports[1]) == [False, False]
