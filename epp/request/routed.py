"""A routed request until its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from epp.metrics import ModelMetrics
from epp.pool.pool import InFlight
from epp.request.decisions import Record
from epp.request.parsed import Intake
from epp.request.stream import StreamObserver
from epp.request.stretches import Pace, TokenWindows

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(slots=True)
class Assignment:
    """`observer`, `windows` and `pace` are there while the response is followed token by token; `tail` is what else was
    kept of the body, for the sake of the usage in it."""

    intake: Intake
    record: Record
    flight: InFlight
    metrics: ModelMetrics
    started_at: float
    is_stream: bool = False
    observer: StreamObserver | None = None
    windows: TokenWindows = field(default_factory=TokenWindows)
    pace: Pace | None = None
    tail: bytes = b""
    response_bytes: int = 0
    is_whole: bool = False
    was_moved: bool = False
    span: "Span | None" = None
    trace_headers: Mapping[str, str] | None = None

    @property
    def destination(self) -> str:
        """Addresses in the order of preference, joined by commas as gateways expect them."""
        endpoints = self.record.decision.endpoints
        return endpoints[0].address if len(endpoints) == 1 else ",".join(e.address for e in endpoints)
