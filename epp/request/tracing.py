"""Traces of requests by OpenTelemetry, under the trace that the client or the gateway began.

Everything is set by the variables that its SDK knows: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER and so on.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from epp.request.routed import Assignment

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """A span for a request from its headers to its end, and one within it for the decision."""

    def __init__(self) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or "headroom-epp"
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("headroom.epp")

    def decided(self, assignment: Assignment, headers: Mapping[str, str], now_s: float) -> Mapping[str, str]:
        """Begins the request's span, with the decision in it; returns the headers that carry it to the model server."""
        now_ns = time.time_ns()
        start_ns = now_ns - int((now_s - assignment.started_at) * 1e9)
        span = self._tracer.start_span(
            "gateway.request", _propagator.extract(headers), SpanKind.SERVER, _asked(assignment), start_time=start_ns
        )
        context = trace.set_span_in_context(span)
        decision = self._tracer.start_span(
            "gateway.request_orchestration", context, attributes=_chosen(assignment), start_time=start_ns
        )
        decision.end(now_ns)
        assignment.span = span
        carried: dict[str, str] = {}
        _propagator.inject(carried, context)
        return carried

    def ended(self, assignment: Assignment) -> None:
        span = assignment.span
        if span is None:
            return
        outcome = assignment.record.outcome
        found = {
            "http.response.status_code": outcome.status,
            "llm.ttft_ms": outcome.ttft_ms,
            "llm.tpot_ms": outcome.tpot_ms,
            "gen_ai.usage.output_tokens": outcome.output_tokens,
        }
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        if outcome.status is None or outcome.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _asked(assignment: Assignment) -> dict[str, Any]:
    request = assignment.intake.request
    asked = {
        "gen_ai.request.model": request.model,
        "headroom.request_id": request.id,
        "headroom.input_tokens": request.input_tokens,
        "headroom.slo_ttft_ms": request.slo_ttft_ms,
        "headroom.slo_tpot_ms": request.slo_tpot_ms,
        "headroom.priority": request.priority,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _chosen(assignment: Assignment) -> dict[str, Any]:
    record = assignment.record
    decision = record.decision
    chosen: dict[str, Any] = {
        "headroom.profile": decision.profile,
        "headroom.candidates": len(decision.candidates),
        "headroom.endpoint": decision.endpoints[0].name,
    }
    if record.predicted:
        chosen |= {"headroom.predicted_ttft_ms": record.predicted[0], "headroom.predicted_tpot_ms": record.predicted[1]}
    if record.prediction_error:
        chosen["headroom.prediction_error"] = record.prediction_error
    return chosen
