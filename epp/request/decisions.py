"""A log of the latest decisions with candidates, features, predictions, choice and outcome, to explain each one."""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from epp.prediction.features import FeatureColumns, feature_columns
from epp.request.overload import Level
from epp.request.shadow import Shadow
from epp.scheduling.plugins.attainment import Worth
from epp.scheduling.plugins.headroom import Headroom
from epp.scheduling.request import Request
from epp.scheduling.scheduler import Decision
from epp.scheduling.snapshot import Predictions
from model_store import ROW_NAMES


@dataclass(slots=True)
class Outcome:
    """The outcome of a request; None for a value that was not observed."""

    status: int | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    output_tokens: int | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A decision and, later, its outcome.

    `prediction_error` says why there is no prediction; `prediction_ms` is how long the prediction took. `level` is how
    much work an overloaded picker spent on the pick. `shadow` is what prediction would have chosen where it had no say.
    """

    decision: Decision
    decision_ms: float
    prediction_error: str | None
    prediction_ms: float = 0.0
    decided_at: float = field(default_factory=time.time)
    outcome: Outcome = field(default_factory=Outcome)
    level: Level = Level.NORMAL
    shadow: Shadow | None = None

    @property
    def source(self) -> str:
        """The source of the predictions: a latency client's name, `fallback` if they failed, `none` if nobody asked."""
        if self.prediction_error:
            return "fallback"
        predictions = self.decision.candidates.predictions
        return predictions.source if predictions else "none"

    @property
    def predicted(self) -> tuple[float, float] | None:
        """TTFT and TPOT in ms that were predicted for the chosen endpoint; None without predictions."""
        predictions = self.decision.candidates.predictions
        if predictions is None:
            return None
        chosen = self.decision.chosen
        return float(predictions.ttft_ms[chosen]), float(predictions.tpot_ms[chosen])

    @property
    def medians(self) -> tuple[float, float] | None:
        """The medians of TTFT and TPOT in ms that were predicted for the chosen endpoint.

        None without medians, and for a strategy that doesn't weigh costs: its predictions decide however far off.
        """
        candidates, chosen = self.decision.candidates, self.decision.chosen
        predictions = candidates.predictions
        if predictions is None or candidates.tpot_slos is None:
            return None
        if predictions.ttft_median_ms is None or predictions.tpot_median_ms is None:
            return None
        return float(predictions.ttft_median_ms[chosen]), float(predictions.tpot_median_ms[chosen])

    @property
    def features(self) -> FeatureColumns:
        """The chosen endpoint's features [features, 1] at the moment of the decision."""
        decision = self.decision
        return feature_columns(decision.request, decision.candidates.take(decision.result.picked[:1]))

    @property
    def prefix_score(self) -> float:
        """The prefix score of the chosen endpoint."""
        return float(self.decision.candidates.prefix_score[self.decision.chosen])


class DecisionLog:
    """The newest decisions, at most `capacity`. A bound on candidate rows limits the memory for a large pool.

    The log keeps no headers and no block hashes, which a client can make as long as it likes.
    """

    def __init__(self, capacity: int, capacity_rows: int = 200_000) -> None:
        self._records: deque[Record] = deque()
        self._capacity = capacity
        self._capacity_rows = capacity_rows
        self._rows = 0

    def add(self, record: Record) -> None:
        self._records.append(_without_long_parts(record))
        self._rows += len(record.decision.candidates)
        while len(self._records) > self._capacity or self._rows > self._capacity_rows:
            self._rows -= len(self._records.popleft().decision.candidates)

    def newest(self, limit: int, request_id: str = "") -> Iterator[Record]:
        """Yield up to `limit` records, newest first. `request_id` limits them to requests with this id."""
        matching = (one for one in reversed(self._records) if request_id in ("", one.decision.request.id))
        return islice(matching, limit)


def _without_long_parts(record: Record) -> Record:
    """Return the record without headers and hashes. `dataclasses.replace` would take twice the time of the log."""
    decision, request = record.decision, record.decision.request
    kept = Request(
        request.id,
        request.model,
        request.input_tokens,
        request.slo_ttft_ms,
        request.slo_tpot_ms,
        request.prediction_based,
        request.priority,
        request.media_items,
    )
    return Record(
        Decision(
            kept,
            decision.candidates,
            decision.profile,
            decision.wanted_profile,
            decision.result,
            decision.slo_buffer_factor,
            decision.response_headers,
        ),
        record.decision_ms,
        record.prediction_error,
        record.prediction_ms,
        record.decided_at,
        record.outcome,
        record.level,
        record.shadow,
    )


def explain(record: Record, with_candidates: bool = True) -> dict[str, Any]:
    """Return the decision as values that JSON can encode."""
    decision = record.decision
    request, candidates = decision.request, decision.candidates
    predictions = candidates.predictions
    explanation: dict[str, Any] = {
        "request_id": request.id,
        "decided_at": record.decided_at,
        "priority": request.priority,
        "model": request.model,
        "input_tokens": request.input_tokens,
        "slo_ttft_ms": request.slo_ttft_ms,
        "slo_tpot_ms": request.slo_tpot_ms,
        "wanted_profile": decision.wanted_profile,
        "profile": decision.profile,
        "endpoint": decision.endpoints[0].name,
        "address": decision.endpoints[0].address,
        "decision_ms": round(record.decision_ms, 3),
        "prediction": predictions and {"source": predictions.source, "generation": predictions.generation},
        "prediction_error": record.prediction_error,
        "overload": record.level.label,
        "predicted": predictions and _latencies(predictions.at(slice(decision.chosen, decision.chosen + 1))),
        "outcome": {name: getattr(record.outcome, name) for name in Outcome.__slots__},
        "shadow": record.shadow and {name: getattr(record.shadow, name) for name in Shadow.__slots__},
        "weights": {scorer.name: scorer.weight for scorer in decision.result.scorers},
    }
    if with_candidates:
        features = feature_columns(request, candidates).T.tolist()
        room, worths = decision.headroom, decision.worth
        positions = {index: position for position, index in enumerate(decision.result.kept.tolist())}
        explanation["candidates"] = [
            _candidate(record, index, features[index], room, worths, positions.get(index))
            for index in range(len(candidates))
        ]
    return explanation


def _candidate(
    record: Record,
    index: int,
    values: list[float],
    room: Headroom | None,
    worths: Worth | None,
    position: int | None,
) -> dict[str, Any]:
    """Explain one candidate; `position` is its index among the candidates that the filters kept, None if dropped."""
    decision = record.decision
    candidates = decision.candidates
    features = {
        name: None if math.isnan(value) else round(value, 6) for name, value in zip(ROW_NAMES, values, strict=True)
    }
    candidate: dict[str, Any] = {"endpoint": candidates.endpoints[index].name, "features": features}
    if candidates.predictions is not None and room is not None:
        candidate["predicted"] = _latencies(candidates.predictions.at(slice(index, index + 1)))
        candidate["headroom"] = {"ttft_ms": _known(room.ttft_ms[index]), "tpot_ms": _known(room.tpot_ms[index])}
    candidate["prefill_ms_per_token"] = _known(candidates.prefill_ms_per_token[index])
    candidate["tpot_bias"] = round(float(candidates.tpot_bias[index]), 3)
    candidate["slowdown"] = round(float(candidates.slowdown[index]), 3)
    if position is None:
        return {**candidate, "filtered": True}
    candidate["score"] = float(decision.result.scores[position])
    candidate["scores"] = {name: float(s[position]) for name, s in decision.result.scores_by_plugin.items()}
    if worths is not None:
        candidate["worth"] = {name: _known(getattr(worths, name)[position]) for name in (*Worth.__slots__, "total")}
    return candidate


def _latencies(one: Predictions) -> dict[str, float]:
    values = {
        "ttft_ms": one.ttft_ms,
        "tpot_ms": one.tpot_ms,
        "ttft_median_ms": one.ttft_median_ms,
        "tpot_median_ms": one.tpot_median_ms,
    }
    return {name: float(value[0]) for name, value in values.items() if value is not None}


def _known(left_ms: float) -> float | None:
    """Return the value, or None when it is inf or NaN: no objective, or nothing predicted."""
    return float(left_ms) if math.isfinite(left_ms) else None
