"""A request's trace passes through Envoy, the picker and the model server, and a collector sees all of it."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headroom.__main__ import main
from headroom.gateway.tracing import Collector, collector
from headroom.processes.ports import free_ports
from simulator.app import create_app
from simulator.config import Config
from simulator.hardware import PRESETS
from tests.headroom.up.test_up import up
from tests.live import live, until

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVICES = ("headroom-envoy", "headroom-epp", "pod")


@dataclass(frozen=True)
class Seen:
    """A span, with its ids in hexadecimal digits."""

    service: str
    name: str
    trace: str
    id: str
    parent: str


@contextmanager
def collecting() -> Iterator[tuple[str, list[Seen]]]:
    """Run a collector of OTLP over HTTP. Yield its URL, and the spans that it gets."""
    spans: list[Seen] = []

    async def take(request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            spans.extend(
                Seen(service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                for scope in resource.scope_spans
                for span in scope.spans
            )
        return Response()

    with live(Starlette(routes=[Route("/v1/traces", take, methods=["POST"])])) as url:
        yield url, spans


async def complete(session: aiohttp.ClientSession, port: int, **headers: str) -> None:
    body = {"model": "m", "prompt": "hello " * 50, "max_tokens": 4, "stream": True}
    async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body, headers=headers) as response:
        assert response.status == 200
        await response.read()


@pytest.mark.slow
async def test_a_trace_passes_through_envoy_picker_and_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    ports = free_ports(2)
    with collecting() as (url, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        kind = Config(
            host="",
            port=0,
            name="pod",
            model="m",
            hardware=PRESETS["fast"],
            speed_factor=40,
            otlp_traces_endpoint=f"{url}/v1/traces",
        )
        with live(create_app(kind)) as server:
            async with up([server, "--tracing", "--embedded"], tmp_path, ports), aiohttp.ClientSession() as session:
                await complete(session, ports[0], traceparent=f"00-{TRACE}-{CLIENT}-01")
                await complete(session, ports[0])
                until(lambda: len({(one.trace, one.service) for one in spans if one.service in SERVICES}) >= 6)
        traces = {one.trace for one in spans if one.service == "headroom-epp"}
        assert len(traces) == 2
        assert TRACE in traces
        for trace in traces:
            of_trace = [one for one in spans if one.trace == trace]
            envoy = {one.id: one for one in of_trace if one.service == "headroom-envoy"}
            # The client's request is one of Envoy's spans; its call of the picker is another one within it.
            (root,) = [one for one in envoy.values() if one.parent not in envoy]
            assert root.parent == (CLIENT if trace == TRACE else "")
            (picker,) = [one for one in of_trace if one.name == "gateway.request"]
            (served,) = [one for one in of_trace if one.name == "llm_request"]
            assert picker.parent in envoy
            assert served.parent in envoy


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, Collector("localhost", 4318, "/v1/traces")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1/b/"}, Collector("a", 1, "/b/v1/traces")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1/b?c"}, Collector("a", 1, "/b?c")),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]:1/", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"},
            Collector("::1", 1, "/"),
        ),
    ],
)
def test_the_collector_is_the_one_of_the_variables(variables: dict[str, str], found: Collector) -> None:
    assert collector(variables) == found


@pytest.mark.parametrize("url", ["https://collector:4318", "collector:4318", "http://a:port", "http://"])
def test_a_collector_that_envoy_cant_reach_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    done = CliRunner().invoke(main, ["up", "http://127.0.0.1:1", "--tracing"])
    assert done.exit_code == 2
    assert "--tracing: OTEL_EXPORTER_OTLP_ENDPOINT: " in done.output
