"""Trace requests by OpenTelemetry, within the trace that the client or the gateway began.

The environment variables of the OpenTelemetry SDK configure it: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER etc.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from epp.request.decisions import Outcome, Record
from epp.scheduling.request import Request

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Makes a span for each request, from its headers to its end, and one within it for the decision."""

    def __init__(self) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or "headroom-epp"
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("headroom.epp")

    def begin(self, record: Record, arrived_s: float, now_s: float) -> "RequestSpan":
        """Begin the span of a request that came at `arrived_s` and has just been decided on, with the decision in it.

        Both times are seconds of one clock.
        """
        now_ns = time.time_ns()
        start_ns = now_ns - int((now_s - arrived_s) * 1e9)
        request = record.decision.request
        span = self._tracer.start_span(
            "gateway.request",
            _propagator.extract(request.headers),
            SpanKind.SERVER,
            _request_attributes(request),
            start_time=start_ns,
        )
        context = trace.set_span_in_context(span)
        decision = self._tracer.start_span(
            "gateway.request_orchestration", context, attributes=_decision_attributes(record), start_time=start_ns
        )
        decision.end(now_ns)
        headers: dict[str, str] = {}
        _propagator.inject(headers, context)
        return RequestSpan(span, headers)

    def close(self) -> None:
        """Send the remaining spans, and shut down."""
        self._provider.shutdown()


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """One request's span. `headers` carry it to the model server."""

    span: Span
    headers: Mapping[str, str]

    def end(self, outcome: Outcome) -> None:
        known = {
            "http.response.status_code": outcome.status,
            "llm.ttft_ms": outcome.ttft_ms,
            "llm.tpot_ms": outcome.tpot_ms,
            "gen_ai.usage.output_tokens": outcome.output_tokens,
        }
        self.span.set_attributes({name: value for name, value in known.items() if value is not None})
        if outcome.status is None or outcome.status >= 500:
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


def _request_attributes(request: Request) -> dict[str, Any]:
    attributes = {
        "gen_ai.request.model": request.model,
        "headroom.request_id": request.id,
        "headroom.input_tokens": request.input_tokens,
        "headroom.slo_ttft_ms": request.slo_ttft_ms,
        "headroom.slo_tpot_ms": request.slo_tpot_ms,
        "headroom.priority": request.priority,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _decision_attributes(record: Record) -> dict[str, Any]:
    decision = record.decision
    attributes: dict[str, Any] = {
        "headroom.profile": decision.profile,
        "headroom.candidates": len(decision.candidates),
        "headroom.endpoint": decision.endpoints[0].name,
    }
    if record.predicted:
        ttft_ms, tpot_ms = record.predicted
        attributes |= {"headroom.predicted_ttft_ms": ttft_ms, "headroom.predicted_tpot_ms": tpot_ms}
    if record.prediction_error:
        attributes["headroom.prediction_error"] = record.prediction_error
    return attributes
