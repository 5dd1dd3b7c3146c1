"""The outcome of one request, as its client saw it."""

from dataclasses import dataclass

from simulator.workload import PlannedRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request.

    `sent_s` counts from the start of the replay. A latency is None if it couldn't be measured: no token came, or
    for `tpot_ms`, fewer than two. `served_by` is the server's name for itself, from the header `x-inference-pod`.
    """

    request: PlannedRequest
    sent_s: float
    status: int = 0
    error: str | None = None
    served_by: str | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float = 0.0
    output_tokens: int = 0

    @property
    def met(self) -> bool:
        """True if the request was answered completely and within both objectives."""
        return (
            self.error is None
            and self.ttft_ms is not None
            and self.ttft_ms <= self.request.slo_ttft_ms
            and (self.tpot_ms or 0.0) <= self.request.slo_tpot_ms
        )
