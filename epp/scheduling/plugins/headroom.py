"""Headroom: a request's objectives minus the predicted latencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Factor
from epp.scheduling.plugin import Plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Indices, Predictions, Snapshot

# Values that differ by no more than this count as equal.
_ALIKE = 1e-9


@dataclass(frozen=True, slots=True)
class Headroom:
    """Objective minus prediction, in ms and of shape [candidates].

    inf where a latency has no objective; NaN where it has an objective but no prediction.
    """

    ttft_ms: Floats
    tpot_ms: Floats

    def at(self, indices: Indices) -> "Headroom":
        return Headroom(self.ttft_ms[indices], self.tpot_ms[indices])


class HeadroomReader(Plugin, frozen=True):
    """The base of plugins that decide by headroom.

    `slo_buffer_factor` scales TPOT limits. Without one, the plugin takes the factor of a declared HeadroomSource.
    """

    slo_buffer_factor: Factor | None = None

    @property
    def buffer_factor(self) -> float:
        return 1.0 if self.slo_buffer_factor is None else self.slo_buffer_factor

    def bound(self, declared: Sequence[Plugin]) -> Self:
        factors = [other.slo_buffer_factor for other in declared if isinstance(other, HeadroomSource)]
        if self.slo_buffer_factor is not None or not factors:
            return self
        return msgspec.structs.replace(self, slo_buffer_factor=factors[0])


class HeadroomSource(Plugin, frozen=True):
    """The base of plugins that provide the buffer factor to each HeadroomReader."""

    slo_buffer_factor: Factor = 1.0


def headroom(request: Request, candidates: Snapshot, predictions: Predictions, buffer_factor: float) -> Headroom:
    """Return the headroom of each candidate.

    The TPOT limit is the stricter of the request's objective and the strictest objective in flight on the candidate.
    The buffer factor scales TPOT limits. Without any objective, headroom is the negative latency, so that candidates
    are ordered by predicted latency alone.
    """
    if request.slo_ttft_ms is None and request.slo_tpot_ms is None:
        return Headroom(-predictions.ttft_ms, -predictions.tpot_ms)
    tpot_ms = _tpot_headroom(request, candidates, predictions, buffer_factor)
    return Headroom(_ttft_headroom(request, predictions), tpot_ms)


def _ttft_headroom(request: Request, predictions: Predictions) -> Floats:
    if request.slo_ttft_ms is None:
        return np.full(len(predictions.ttft_ms), np.inf)
    return request.slo_ttft_ms - predictions.ttft_ms


def _tpot_headroom(request: Request, candidates: Snapshot, predictions: Predictions, buffer_factor: float) -> Floats:
    limit = candidates.tightest_tpot_slo_ms * buffer_factor
    if request.slo_tpot_ms is not None:
        return np.minimum(limit, request.slo_tpot_ms * buffer_factor) - predictions.tpot_ms
    left = np.full(len(limit), np.inf)
    np.subtract(limit, predictions.tpot_ms, out=left, where=limit < np.inf)
    return left


def cannot_meet(request: Request, candidates: Snapshot, buffer_factor: float) -> bool:
    """Return whether every candidate is busy and is predicted to miss an objective of the request.

    Return False when a candidate has no prediction, since that candidate might meet the objectives.
    """
    predictions = candidates.predictions
    if predictions is None or (request.slo_ttft_ms is None and request.slo_tpot_ms is None):
        return False
    if not candidates.in_flight.all():
        return False
    room = headroom(request, candidates, predictions, buffer_factor)
    return bool(((room.ttft_ms <= 0) | (room.tpot_ms <= 0)).all())


def scale_to_unit(values: Floats) -> Floats | None:
    """Scale values to [0, 1] by the least and the greatest finite value; inf becomes 1. None when all are equal."""
    low, high = values.min(), values.max()
    if high == np.inf:
        asked = values < np.inf
        if not asked.any():
            return None
        high = values[asked].max()
        if high - low <= _ALIKE:
            return (~asked).astype(np.float64)
    if high - low <= _ALIKE:
        return None
    scaled: Floats = np.minimum((values - low) / (high - low), 1.0)
    return scaled


def deficits(left_ms: Floats) -> Floats:
    """Return how many ms each value misses the objective by; 0 where it is met or there is no objective."""
    return np.maximum(-left_ms, 0.0)
