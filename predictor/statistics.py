"""Statistics of requests: a few integers per model, so that counting costs almost nothing."""

import time
from dataclasses import dataclass

import msgspec

# Bucket n counts requests that took less than 2**n microseconds, and at least 2**(n-1).
BUCKETS = 24


@dataclass(frozen=True, slots=True)
class Timing:
    """The parts of one request's duration. `queue_ns` is the wait for a thread, which only large requests have."""

    input_ns: int
    queue_ns: int
    infer_ns: int
    output_ns: int

    @property
    def total_ns(self) -> int:
        return self.input_ns + self.queue_ns + self.infer_ns + self.output_ns


class Statistics(msgspec.Struct):
    """The statistics of one model, or of one version of it."""

    succeeded: int = 0
    failed: int = 0
    rows: int = 0
    executions: int = 0
    input_ns: int = 0
    queue_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    failed_ns: int = 0
    last_inference_ms: int = 0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (BUCKETS + 1))

    def count(self, rows: int, timing: Timing) -> None:
        """Count one answered request, which was one batch."""
        self.succeeded += 1
        self.executions += 1
        self.rows += rows
        self.input_ns += timing.input_ns
        self.queue_ns += timing.queue_ns
        self.infer_ns += timing.infer_ns
        self.output_ns += timing.output_ns
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.buckets[min((timing.total_ns // 1000).bit_length(), BUCKETS)] += 1

    def add(self, other: "Statistics") -> None:
        """Add another process's statistics."""
        for name in self.__struct_fields__:
            if name not in ("buckets", "last_inference_ms"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)

    def count_failure(self, took_ns: int) -> None:
        self.failed += 1
        self.failed_ns += took_ns

    @property
    def total_ns(self) -> int:
        """The total duration of all answered requests."""
        return self.input_ns + self.queue_ns + self.infer_ns + self.output_ns
