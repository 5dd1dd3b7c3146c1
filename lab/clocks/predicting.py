"""The quality of the predictions that decisions were made from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lab.evaluation.policies.picker import Predicted
from simulator.cluster import Flight


class PredictionOutcome(NamedTuple):
    """A decision's prediction, or None, and the latencies that the picker observed, in ms."""

    predicted: Predicted | None
    ttft_ms: float | None
    tpot_ms: float | None


class Prediction(msgspec.Struct, frozen=True):
    """The quality of some decisions' predictions, in percent.

    `share` is the share of decisions that used a prediction. `*_mdape` is the median absolute percentage error of the
    predicted median. `*_coverage` is the share of latencies at or below their predicted upper quantile. Both are None
    if there is nothing to compare.
    """

    share: float
    ttft_mdape: float | None
    tpot_mdape: float | None
    ttft_coverage: float | None
    tpot_coverage: float | None


def from_flight(flight: Flight, predicted: Mapping[int, Predicted]) -> PredictionOutcome:
    """Return a decision of virtual time."""
    return PredictionOutcome(predicted.get(flight.arrival.index), flight.ttft_ms, flight.tpot_ms)


def from_decision(decision: Mapping[str, Any]) -> PredictionOutcome:
    """Return a decision from the picker's JSON at /debug/decisions. If it has no median, use the quantile instead."""
    prediction, outcome = decision["predicted"], decision["outcome"]
    predicted = prediction and Predicted(
        ttft_ms=prediction["ttft_ms"],
        tpot_ms=prediction["tpot_ms"],
        ttft_median_ms=prediction.get("ttft_median_ms", prediction["ttft_ms"]),
        tpot_median_ms=prediction.get("tpot_median_ms", prediction["tpot_ms"]),
    )
    return PredictionOutcome(predicted, outcome["ttft_ms"], outcome["tpot_ms"])


def prediction_quality(decisions: Sequence[PredictionOutcome]) -> Prediction:
    known = [(one, one.predicted) for one in decisions if one.predicted]
    ttft = _errors([(said.ttft_median_ms, said.ttft_ms, one.ttft_ms) for one, said in known])
    tpot = _errors([(said.tpot_median_ms, said.tpot_ms, one.tpot_ms) for one, said in known])
    return Prediction(
        share=round(100 * len(known) / max(len(decisions), 1), 1),
        ttft_mdape=_error(ttft),
        tpot_mdape=_error(tpot),
        ttft_coverage=_coverage(ttft),
        tpot_coverage=_coverage(tpot),
    )


def _errors(rows: Sequence[tuple[float, float, float | None]]) -> NDArray[np.float64]:
    """Return an array with a row (predicted median, predicted upper quantile, observed) per observed latency."""
    return np.array([row for row in rows if row[2]], dtype=np.float64).reshape(-1, 3)


def _error(rows: NDArray[np.float64]) -> float | None:
    return round(float(np.median(np.abs(rows[:, 0] / rows[:, 2] - 1))) * 100, 1) if len(rows) else None


def _coverage(rows: NDArray[np.float64]) -> float | None:
    return round(float((rows[:, 2] <= rows[:, 1]).mean()) * 100, 1) if len(rows) else None
