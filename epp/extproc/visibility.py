"""Shows predictions to the client, in response headers or in a stream's usage, if the operator enables it."""

from dataclasses import dataclass
from typing import Any

import msgspec

from epp.request.routed import RoutedRequest

_PREDICTED = {"ttft": "x-headroom-predicted-ttft-ms", "tpot": "x-headroom-predicted-tpot-ms"}
_USAGE = b'"usage"'
_DATA = b"data:"


@dataclass(frozen=True, slots=True)
class Visibility:
    """The operator's choice of what clients and gateway see.

    `in_headers` adds x-headroom-* and Server-Timing to responses. `in_usage` adds fields to the usage of streamed
    responses. `scores` sends every candidate's total score to the gateway.
    """

    in_headers: bool = False
    in_usage: bool = False
    scores: bool = False

    def scores_by_address(self, routed: RoutedRequest) -> dict[str, float] | None:
        """Return the scores of the candidates that passed the filters, or None if they aren't sent."""
        if not self.scores:
            return None
        decision = routed.record.decision
        totals = zip(decision.result.kept.tolist(), decision.result.scores.tolist(), strict=True)
        return {decision.candidates.endpoints[index].address: score for index, score in totals}

    def headers(self, routed: RoutedRequest) -> dict[str, str]:
        """Return the headers to add to the response."""
        if not self.in_headers:
            return {}
        record = routed.record
        headers = {
            "x-headroom-endpoint": record.decision.endpoints[0].name,
            "x-headroom-profile": record.decision.profile,
        }
        timings = [f'epp;desc="decision";dur={record.decision_ms:.3f}']
        if record.predicted:
            for (name, header), value in zip(_PREDICTED.items(), record.predicted, strict=True):
                headers[header] = f"{value:.3f}"
                timings.append(f'{name};desc="predicted";dur={value:.3f}')
        return {**headers, "server-timing": ", ".join(timings)}

    def body(self, routed: RoutedRequest, chunk: bytes) -> bytes:
        """Return a stream's chunk with predicted and observed latencies added to its events' usage."""
        if _USAGE not in chunk:
            return chunk
        return b"\n".join(_completed(line, routed) for line in chunk.split(b"\n"))


def _completed(line: bytes, routed: RoutedRequest) -> bytes:
    if not line.startswith(_DATA) or _USAGE not in line:
        return line
    try:
        event = msgspec.json.decode(line[len(_DATA) :], type=dict[str, msgspec.Raw])
        usage = msgspec.json.decode(event["usage"], type=dict[str, Any])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        return line
    event["usage"] = msgspec.Raw(msgspec.json.encode({**usage, **_fields(routed)}))
    return _DATA + b" " + msgspec.json.encode(event)


def _fields(routed: RoutedRequest) -> dict[str, Any]:
    """Return the usage fields, under the names of the gateway API's picker."""
    record, tpot_ms = routed.record, routed.tpot_ms
    fields: dict[str, Any] = {}
    if record.outcome.ttft_ms is not None:
        fields["ttft_ms"] = round(record.outcome.ttft_ms, 3)
    if tpot_ms is not None:
        fields["avg_tpot_ms"] = round(tpot_ms, 3)
        fields["tpot_observations_ms"] = [round(stretch_ms, 3) for _, stretch_ms in routed.stretches_tpot_ms()]
    if record.predicted:
        predicted_ttft_ms, predicted_tpot_ms = (round(value, 3) for value in record.predicted)
        fields["predicted_ttft_ms"] = predicted_ttft_ms
        fields["avg_predicted_tpot_ms"] = predicted_tpot_ms
        fields["predicted_tpot_observations_ms"] = [predicted_tpot_ms]
    return fields
