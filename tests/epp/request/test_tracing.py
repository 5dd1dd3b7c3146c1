import asyncio

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from epp.request.tracing import Tracing
from tests.epp.extproc.test_exchange import SLO_HEADERS
from tests.epp.parts import CHAT, FixedPredictions, Gateway, build_director, set_headers
from tests.live import PATIENCE_S

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def collected(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], gateways_span: str = ""
) -> tuple[list[Span], str]:
    """Return the spans that a collector gets for one observed request, and the traceparent for the model server."""
    received = asyncio.Queue[bytes]()

    async def take(request: web.Request) -> web.Response:
        received.put_nowait(await request.read())
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    director = build_director(latency=FixedPredictions([(100, 10), (100, 10)]))
    director.tracing = Tracing()
    gateway = Gateway(director)
    if gateways_span:
        gateway.exchange.begin_within(gateways_span)
    await gateway.request_headers(**SLO_HEADERS, **headers)
    (picked,) = await gateway.request_body(CHAT)
    await gateway.response_headers()
    await gateway.response_body(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    gateway.exchange.close()
    await asyncio.to_thread(director.tracing.close)
    body = await asyncio.wait_for(received.get(), PATIENCE_S)
    await runner.cleanup()
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return list(resource.scope_spans[0].spans), set_headers(picked)["traceparent"]


async def test_a_request_is_a_span_in_the_clients_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, forwarded = await collected(monkeypatch, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    by_name = {span.name: span for span in spans}
    request, decision = by_name["gateway.request"], by_name["gateway.request_orchestration"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert decision.parent_span_id == request.span_id
    assert forwarded == f"00-{TRACE}-{request.span_id.hex()}-01"
    attributes = {a.key: a.value for a in (*request.attributes, *decision.attributes)}
    assert attributes["headroom.predicted_ttft_ms"].double_value == 100
    assert attributes["llm.ttft_ms"].double_value > 0
    assert attributes["headroom.slo_ttft_ms"].double_value == 500
    assert request.start_time_unix_nano <= decision.end_time_unix_nano <= request.end_time_unix_nano


async def test_the_span_of_the_gateways_call_comes_before_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    spans, _ = await collected(monkeypatch, headers, gateways_span=f"00-{TRACE}-00000000000000aa-01")
    (request,) = [span for span in spans if span.name == "gateway.request"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, "00000000000000aa")


async def test_a_request_without_a_trace_begins_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, forwarded = await collected(monkeypatch, {})
    (trace_id,) = {span.trace_id.hex() for span in spans}
    assert forwarded.split("-")[1] == trace_id
