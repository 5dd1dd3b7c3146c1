"""What a judge is asked to do, and what is read from its own report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epp.request.headers import PREDICTION, TPOT, TTFT
from simulator.outcome import Outcome
from simulator.workload import PlannedRequest

OBJECTIVES = "judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The load that a judge offers to the gateway, and the objectives of each request in ms.

    The judge writes its reports into `folder`, and reads the tokenizer of the servers' model from `tokenizer`.
    """

    url: str
    model: str
    tokenizer: Path
    folder: Path
    requests: int
    rate_rps: float
    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float
    seed: int
    trace: Path

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell the picker the objectives, and ask for predictions."""
        return {TTFT[-1]: f"{self.ttft_ms:g}", TPOT[-1]: f"{self.tpot_ms:g}", PREDICTION: "T"}


@dataclass(frozen=True, slots=True)
class Command:
    """A judge's command line, and what it needs of the environment variables."""

    line: Sequence[object]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The times that a judge noted for one request, in seconds of its own clock.

    `first_s` and `last_s` are those of the first and the last token; None if no token came.
    """

    sent_s: float
    end_s: float
    first_s: float | None = None
    last_s: float | None = None
    tokens: int = 0
    error: str | None = None

    def outcome(self, index: int, ttft_ms: float, tpot_ms: float) -> Outcome:
        """Return the request's outcome by this project's rules."""
        request = PlannedRequest(
            index=index,
            id=str(index),
            arrival_s=0.0,
            prompt_tokens=0,
            output_tokens=self.tokens,
            slo_class=OBJECTIVES,
            slo_ttft_ms=ttft_ms,
            slo_tpot_ms=tpot_ms,
            prompt="",
        )
        return Outcome(
            request=request,
            sent_s=self.sent_s,
            error=self.error,
            ttft_ms=None if self.first_s is None else (self.first_s - self.sent_s) * 1000,
            tpot_ms=self._tpot_ms,
            e2e_ms=(self.end_s - self.sent_s) * 1000,
            output_tokens=self.tokens,
        )

    @property
    def _tpot_ms(self) -> float | None:
        if self.first_s is None or self.last_s is None or self.tokens < 2:
            return None
        return (self.last_s - self.first_s) * 1000 / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's own figures: requests that met the objectives, of how many, their rate, and over how many seconds.

    `requests` are its notes for each request.
    """

    good: int
    total: int
    goodput_rps: float
    duration_s: float
    requests: Sequence[Arrivals]
