"""A real Envoy asks clients for what its configuration says, and the openai client understands its refusal."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from epp.extproc.tls import self_signed
from headroom.gateway import clusters, envoy
from headroom.gateway.client_port import ClientPort
from headroom.processes.ports import free_ports
from headroom.processes.supervisor import Part, Supervisor
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.epp.process import picker_process
from tests.live import PATIENCE_S, live

pytestmark = pytest.mark.slow

BODY = {"model": "m", "prompt": "hello", "max_tokens": 1}


@asynccontextmanager
async def gateway(folder: Path, clients: ClientPort, picker_port: int | None = None) -> AsyncIterator[str]:
    """Run Envoy in front of a simulated server. Without a picker, it sends requests on without one."""
    port, admin_port, nobody = free_ports(3)
    config = Config(host="", port=0, name="pod", model="m", hardware=PRESETS["fast"], speed_factor=40)
    supervisor = Supervisor(folder, lambda name: None)
    with live(create_app(config)) as server:
        host, _, server_port = server.removeprefix("http://").partition(":")
        listed, file = folder / "servers.json", folder / "envoy.json"
        listed.write_text(clusters.discovered([clusters.Server(host, int(server_port))]))
        file.write_text(
            envoy.bootstrap(
                port=port,
                admin_port=admin_port,
                picker_port=picker_port or nobody,
                servers=listed,
                clients=clients,
            )
        )
        part = Part(
            "envoy", envoy.command(file), [port, admin_port], f"http://127.0.0.1:{admin_port}/ready", os.environ
        )
        try:
            await supervisor.start([part], lambda name: None)
            yield f"{'https' if clients.certificate else 'http'}://127.0.0.1:{port}/v1/completions"
        finally:
            await supervisor.stop()


async def test_a_key_is_asked_for_in_openais_words(tmp_path: Path) -> None:
    async with gateway(tmp_path, ClientPort(api_key="right")) as url, aiohttp.ClientSession() as session:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with session.post(url, json=BODY, headers=headers) as response:
                assert response.status == 401
                assert response.content_type == "application/json"
                assert (await response.json())["error"]["code"] == "invalid_api_key"
        async with session.post(url, json=BODY, headers={"authorization": "Bearer right"}) as response:
            assert response.status == 200
            assert (await response.json())["choices"]


async def test_clients_are_served_over_tls(tmp_path: Path) -> None:
    key, certificate = self_signed()
    clients = ClientPort(certificate=certificate, private_key=key)
    async with gateway(tmp_path, clients) as url, aiohttp.ClientSession() as session:
        async with session.post(url, json=BODY, ssl=False) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.post(url.replace("https:", "http:"), json=BODY)


async def test_a_body_that_is_too_large_is_refused_in_openais_words(tmp_path: Path) -> None:
    def body(size: int) -> io.BytesIO:
        return io.BytesIO(json.dumps({**BODY, "ignored": "x" * size}).encode())

    with picker_process(tmp_path, "--secure-serving=true", "--health-checking=true") as picker:
        async with (
            gateway(tmp_path, ClientPort(max_body_bytes=1 << 20), picker.grpc_port) as url,
            aiohttp.ClientSession() as session,
            asyncio.timeout(PATIENCE_S),
        ):
            status = 200
            while status == 200:  # until Envoy has found the picker healthy
                async with session.post(url, data=body(1 << 21)) as response:
                    status, answer = response.status, await response.json()
            assert status == 413
            assert answer["error"]["message"] == "the body is larger than 1048576 bytes"
            assert (answer["error"]["type"], answer["error"]["code"]) == ("PayloadTooLargeError", 413)
            async with session.post(url, data=body(1 << 19)) as response:
                assert response.status != 413


async def test_an_answer_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    body = {**BODY, "max_tokens": 4_000, "ignore_eos": True}
    async with gateway(tmp_path, ClientPort(timeout_s=0.2)) as url, aiohttp.ClientSession() as session:
        async with session.post(url, json=body) as response:
            assert response.status == 504
            assert (await response.json())["error"]["message"] == "the answer took longer than 0.2 s"
        async with session.post(url, json={**body, "stream": True}) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_servers_change_with_the_file(tmp_path: Path) -> None:
    async with gateway(tmp_path, ClientPort()) as url, aiohttp.ClientSession() as session:
        draft = tmp_path / "draft"
        draft.write_text(clusters.discovered([]))
        draft.replace(tmp_path / "servers.json")
        async with asyncio.timeout(60):
            while True:
                async with session.post(url, json=BODY) as response:
                    if response.status == 503:
                        break
    assert json.loads((tmp_path / "servers.json").read_text())["resources"]
