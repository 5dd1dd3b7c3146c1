"""Predictions shown to the client, where the operator wants it: as response headers, or in a stream's usage."""

from dataclasses import dataclass
from typing import Any

import msgspec

from epp.request.routed import Assignment

_USAGE = b'"usage"'
_DATA = b"data:"


@dataclass(frozen=True, slots=True)
class Visibility:
    """`in_headers` adds x-headroom-* and Server-Timing; `in_usage` adds fields to the usage of streamed responses.

    `scores` tells the gateway every candidate's total score.
    """

    in_headers: bool = False
    in_usage: bool = False
    scores: bool = False

    def scores_by_address(self, assignment: Assignment) -> dict[str, float] | None:
        """Of the candidates that passed the filters."""
        if not self.scores:
            return None
        decision = assignment.record.decision
        totals = zip(decision.result.kept.tolist(), decision.result.scores.tolist(), strict=True)
        return {decision.candidates.endpoints[index].address: score for index, score in totals}

    def headers(self, assignment: Assignment) -> dict[str, str]:
        """What is added to the response's headers."""
        if not self.in_headers:
            return {}
        record = assignment.record
        headers = {
            "x-headroom-endpoint": record.decision.endpoints[0].name,
            "x-headroom-profile": record.decision.profile,
        }
        timings = [f'epp;desc="decision";dur={record.decision_ms:.3f}']
        if record.predicted:
            for name, value in zip(("ttft", "tpot"), record.predicted, strict=True):
                headers[f"x-headroom-predicted-{name}-ms"] = f"{value:.3f}"
                timings.append(f'{name};desc="predicted";dur={value:.3f}')
        return {**headers, "server-timing": ", ".join(timings)}

    def body(self, assignment: Assignment, chunk: bytes) -> bytes:
        """The chunk, its events' usage completed by what was predicted and observed. Untouched without usage."""
        if not self.in_usage or not assignment.is_stream or _USAGE not in chunk:
            return chunk
        return b"\n".join(_completed(line, assignment) for line in chunk.split(b"\n"))


def _completed(line: bytes, assignment: Assignment) -> bytes:
    if not line.startswith(_DATA) or _USAGE not in line:
        return line
    try:
        event = msgspec.json.decode(line[len(_DATA) :], type=dict[str, msgspec.Raw])
        usage = msgspec.json.decode(event["usage"], type=dict[str, Any])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        return line
    event["usage"] = msgspec.Raw(msgspec.json.encode({**usage, **_fields(assignment)}))
    return _DATA + b" " + msgspec.json.encode(event)


def _fields(assignment: Assignment) -> dict[str, Any]:
    """The names that clients of the gateway API's picker know."""
    record, observer = assignment.record, assignment.observer
    fields: dict[str, Any] = {}
    if record.outcome.ttft_ms is not None:
        fields["ttft_ms"] = round(record.outcome.ttft_ms, 3)
    if observer and observer.tpot_ms is not None:
        fields["avg_tpot_ms"] = round(observer.tpot_ms, 3)
        stretches = assignment.windows.complete()
        fields["tpot_observations_ms"] = [round(s.tpot_ms(observer.tokens / observer.events), 3) for s in stretches]
    if record.predicted:
        ttft_ms, tpot_ms = record.predicted
        fields["predicted_ttft_ms"] = round(ttft_ms, 3)
        fields["avg_predicted_tpot_ms"] = round(tpot_ms, 3)
        fields["predicted_tpot_observations_ms"] = [round(tpot_ms, 3)]
    return fields
