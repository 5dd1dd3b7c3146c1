"""Test probes against live servers, and the number of attempts that make a verdict."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headroom.processes.ports import free_port
from tests.live import live
from tests.node.manifests import container, pod
from tests.node.objects import Action, Command, Grpc, HttpGet, Port, Probe, to_pod
from tests.node.probes import Target, attempt, verdicts

HERE = "127.0.0.1"


def target(port: int = 0, code: int = 0, delay_s: float = 0.0) -> Target:
    """Return a container with a port named `http`. Each command in it ends with `code` after `delay_s`."""

    async def run(command: list[str], timeout_s: float) -> tuple[int, bytes]:
        await asyncio.sleep(delay_s)
        return code, " ".join(command).encode()

    spec = container("busybox", ports=[{"name": "http", "containerPort": port or 1}])
    return Target(to_pod(pod("pod", spec)).spec.containers[0], HERE, run)


async def status(request: Request) -> Response:
    if request.path_params["code"] == 302:
        return RedirectResponse("/500")
    return Response(request.headers.get("x-given", ""), request.path_params["code"])


async def test_http_probes_succeed_below_status_400() -> None:
    with live(Starlette(routes=[Route("/{code:int}", status)])) as url:
        port = int(url.rpartition(":")[2])
        for code, said in ((200, ""), (302, ""), (404, "statuscode: 404"), (503, "statuscode: 503")):
            failure = await attempt(Action(http_get=HttpGet("http", f"/{code}")), target(port), 5)
            assert failure.endswith(said)
            assert bool(failure) == bool(said)
        assert await attempt(Action(tcp_socket=Port(port)), target(), 5) == ""
    assert "Connect call failed" in await attempt(Action(tcp_socket=Port(port)), target(), 5)
    assert "no port of the container is named" in await attempt(Action(http_get=HttpGet("other")), target(), 5)


@asynccontextmanager
async def health_service(**statuses: int) -> AsyncIterator[int]:
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HERE}:0")
    for name, value in statuses.items():
        await servicer.set(name, value)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_grpc_probes_succeed_only_for_a_serving_service() -> None:
    answers = health_pb2.HealthCheckResponse
    async with health_service(liveness=answers.SERVING, readiness=answers.NOT_SERVING) as port:
        assert await attempt(Action(grpc=Grpc(port, "liveness")), target(), 5) == ""
        assert "'NOT_SERVING'" in await attempt(Action(grpc=Grpc(port, "readiness")), target(), 5)
        assert "NOT_FOUND" in await attempt(Action(grpc=Grpc(port, "absent")), target(), 5)
    assert "UNAVAILABLE" in await attempt(Action(grpc=Grpc(free_port(), "liveness")), target(), 5)


async def test_a_command_fails_by_its_exit_code_or_a_timeout() -> None:
    action = Action(exec=Command(["true"]))
    assert await attempt(action, target(), 5) == ""
    assert await attempt(action, target(code=3), 5) == "true (exit code 3)"
    assert await attempt(action, target(delay_s=600), 0.01) == "probe timed out after 0.01s"


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("ww", [(2, True)]),
        ("wfww", [(4, True)]),
        ("fff", [(3, False)]),
        ("ffwfff", [(6, False)]),
        ("wwwfff", [(2, True), (3, True), (6, False)]),
    ],
)
async def test_equal_attempts_in_a_row_make_a_verdict(results: str, expected: list[tuple[int, bool]]) -> None:
    done, failures = 0, []

    async def run(command: list[str], timeout_s: float) -> tuple[int, bytes]:
        nonlocal done
        done += 1
        return results[done - 1 : done] == "f", b""

    async def failed(said: str) -> None:
        failures.append(said)

    probe = Probe(exec=Command(["true"]), period_seconds=0, success_threshold=2, failure_threshold=3)
    seen = []
    async for well in verdicts(probe, Target(target().container, HERE, run), failed):
        seen.append((done, well))
        if done == len(results):
            break
    assert seen == expected
    assert len(failures) == results[:done].count("f")
