"""`headroom up` in front of servers that run already: real Envoy, and every part a process of its own."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from headroom.processes.ports import free_ports
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.live import PATIENCE_S, live

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    with ExitStack() as stack:
        kinds = [Config(host="", port=0, name=n, model="m", hardware=PRESETS[n], speed_factor=40) for n in PRESETS]
        yield [stack.enter_context(live(create_app(kind))) for kind in kinds]


@asynccontextmanager
async def up(
    servers: Sequence[str], state: Path, ports: Sequence[int], told: list[str] | None = None
) -> AsyncIterator[psutil.Process]:
    """Run `headroom up` until it serves; end it by Ctrl-C, and check that nothing is left of it.

    `servers` are arguments: URLs, or the flag of a file. What it says until then is added to `told`.
    """
    flags = ["--port", str(ports[0]), "--page-port", str(ports[1]), "--state", str(state), "--ttft-ms", "800"]
    command = [sys.executable, "-m", "headroom", "up", *servers, *flags]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        said = b""
        async with asyncio.timeout(PATIENCE_S):
            while b"clients: http" not in said:
                line = await process.stderr.readline()  # type: ignore[union-attr]
                assert line, said.decode()
                said += line
        if told is not None:
            told.append(said.decode())
        running = psutil.Process(process.pid)
        children = running.children(recursive=True)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        status = await process.wait()
    assert status == 130
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert alive == []


async def complete(session: aiohttp.ClientSession, port: int, request_id: str, **headers: str) -> str:
    """Return the name of the server that answered."""
    body = {"model": "m", "prompt": f"{request_id} " * 50, "max_tokens": 4, "stream": True}
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with session.post(url, json=body, headers={"x-request-id": request_id, **headers}) as response:
        assert response.status == 200
        await response.read()
        return response.headers["x-inference-pod"]


async def decision(session: aiohttp.ClientSession, port: int, request_id: str) -> dict[str, Any]:
    """Return a request's decision; empty if it passed a picker that was too slow on a busy machine."""
    query = {"request_id": request_id}
    async with session.get(f"http://127.0.0.1:{port}/debug/decisions", params=query) as response:
        found = (await response.json())["decisions"]
    return dict(found[0]) if found else {}


def write_list(file: Path, url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    draft = file.with_suffix(".draft")
    draft.write_text(f"endpoints:\n- {{address: {host}, port: {port}}}\n")
    draft.replace(file)


async def decide(session: aiohttp.ClientSession, ports: Sequence[int], request_id: str, **headers: str) -> Any:
    await complete(session, ports[0], request_id, **headers)
    return await decision(session, ports[1], request_id)


async def served_generation(session: aiohttp.ClientSession, running: psutil.Process) -> int:
    """Return the generation that the prediction server of a running `headroom up` serves."""
    [command] = [child.cmdline() for child in running.children() if "predictor" in child.cmdline()]
    port = command[command.index("--port") + 1]
    async with session.get(f"http://127.0.0.1:{port}/status") as response:
        return int((await response.json())["generation"] or 0)


async def until_learnt(session: aiohttp.ClientSession, port: int, running: psutil.Process) -> None:
    """Send requests until there are models. None asks for a prediction: a picker waits after one that failed."""
    async with asyncio.timeout(PATIENCE_S):
        for sent in count(0, 10):
            names = [f"learn{sent + index}" for index in range(10)]
            default = {"x-prediction-based-scheduling": "false"}
            await asyncio.gather(*(complete(session, port, name, **default) for name in names))
            if await served_generation(session, running):
                return


async def until_predicted(session: aiohttp.ClientSession, ports: Sequence[int], name: str) -> Any:
    """Send requests until one is predicted. Return its decision."""
    async with asyncio.timeout(PATIENCE_S):
        for sent in count(0, 10):
            found = await asyncio.gather(*(decide(session, ports, f"{name}{sent + index}") for index in range(10)))
            predicted = [one for one in found if one.get("prediction") and not one["prediction_error"]]
            if predicted:
                return predicted[0]
    raise AssertionError


async def test_servers_get_requests_by_prediction_also_after_a_restart_and_leave_by_a_file(
    servers: list[str], tmp_path: Path
) -> None:
    ports = free_ports(2)
    async with aiohttp.ClientSession() as session:
        async with up(servers, tmp_path, ports) as running:
            names = [child.cmdline()[2] for child in running.children() if "-m" in child.cmdline()]
            assert sorted(names) == ["epp", "predictor", "trainer"]
            await until_learnt(session, ports[0], running)
            await until_predicted(session, ports, "r")
            async with asyncio.timeout(PATIENCE_S):
                while not (own := await decide(session, ports, "own", **{"x-slo-ttft-ms": "900"})):
                    pass
            assert own["slo_ttft_ms"] == 900
        listed = json.loads((tmp_path / "endpoints.json").read_text())["endpoints"]
        assert [f"http://{one['address']}:{one['port']}" for one in listed] == servers
        assert {one["labels"]["llm-d.ai/engine-type"] for one in listed} == {"vllm"}

        file = tmp_path / "own.yaml"
        write_list(file, servers[0])
        kept = json.loads((tmp_path / "models" / "current.json").read_text())["generation"]
        async with up(["--endpoints-file", str(file)], tmp_path, ports) as running:
            assert await served_generation(session, running) >= kept, "before the first request"
            found = await until_predicted(session, ports, "again")
            assert (found["slo_ttft_ms"], found["profile"]) == (800, "slo"), "the request brought no objective"
            write_list(file, servers[1])
            async with asyncio.timeout(PATIENCE_S):
                while await complete(session, ports[0], "moved") != "slow":
                    pass

        before = time.time()
        async with up([*servers, "--shadow"], tmp_path, ports):
            shadowed = await until_predicted(session, ports, "shadow")
            assert shadowed["profile"] == "default"
            assert shadowed["shadow"]["endpoint"] in ("fast", "slow", *(url.removeprefix("http://") for url in servers))
        command = [sys.executable, "-m", "headroom", "report", str(tmp_path / "outcomes"), "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        figures = json.loads(said)
        assert figures["gain"]["requests"] >= 1
        assert figures["by_profile"].keys() == {"default", "slo"}
        assert figures["over_time"][-1]["began_at"] > before - 3600


async def test_a_new_api_key_holds_after_sighup_and_costs_no_request(servers: list[str], tmp_path: Path) -> None:
    ports, key = free_ports(2), tmp_path / "key"
    key.write_text("one\n")
    url, body = f"http://127.0.0.1:{ports[0]}/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 1}

    async def status(session: aiohttp.ClientSession, key: str) -> int:
        async with session.post(url, json=body, headers={"authorization": f"Bearer {key}"}) as response:
            return response.status

    flags = ["--embedded", "--api-key-file", str(key)]
    async with aiohttp.ClientSession() as session, up([*servers, *flags], tmp_path, ports) as running:
        assert [await status(session, one) for one in ("one", "two")] == [200, 401]
        assert not (tmp_path / "envoy-listener.json").stat().st_mode & 0o077, "it has the key"
        long = {**body, "max_tokens": 4_000, "ignore_eos": True, "stream": True}
        async with session.post(url, json=long, headers={"authorization": "Bearer one"}) as answer:
            await answer.content.readline()
            key.write_text("")
            running.send_signal(signal.SIGHUP)
            key.write_text("two")
            async with asyncio.timeout(PATIENCE_S):
                while [await status(session, one) for one in ("one", "two")] != [401, 200]:
                    running.send_signal(signal.SIGHUP)
            assert b"data: [DONE]" in await answer.read()
