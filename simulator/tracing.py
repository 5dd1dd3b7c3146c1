"""Spans of requests as vLLM makes them with its flag of the same name, within the trace that the caller began."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from simulator.sequence import Sequence


class Tracing:
    """Sends a span of each request to a collector, by OTLP over HTTP at this URL."""

    def __init__(self, endpoint: str, service: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("simulator")
        self._propagator = TraceContextTextMapPropagator()

    async def follow(
        self, generating: AsyncGenerator[bool, None], sequence: Sequence, headers: Mapping[str, str]
    ) -> AsyncGenerator[bool, None]:
        """Yield what `generating` yields, in a span that ends with it."""
        attributes: dict[str, str | int] = {
            "gen_ai.request.id": str(sequence.id),
            "gen_ai.request.max_tokens": sequence.output_tokens,
            "gen_ai.usage.prompt_tokens": sequence.prompt_tokens,
        }
        began, tokens = time.perf_counter(), 0
        span = self._tracer.start_span("llm_request", self._propagator.extract(headers), SpanKind.SERVER, attributes)
        try:
            async with aclosing(generating):
                async for last in generating:
                    tokens += 1
                    if tokens == 1:
                        span.set_attribute("gen_ai.latency.time_to_first_token", time.perf_counter() - began)
                    yield last
        finally:
            span.set_attribute("gen_ai.usage.completion_tokens", tokens)
            span.set_attribute("gen_ai.latency.e2e", time.perf_counter() - began)
            span.end()

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()
