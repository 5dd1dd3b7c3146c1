"""Headroom: what is left of a request's objectives after the predicted latencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from epp.scheduling.configuration.parameters import Factor
from epp.scheduling.plugin import Plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Floats, Indices, Predictions, Snapshot

_ALIKE = 1e-9


@dataclass(frozen=True, slots=True)
class Headroom:
    """Objective minus prediction, in ms and of shape [candidates].

    inf where nothing is asked of a latency; NaN where something is asked, and no prediction says whether it is met.
    """

    ttft_ms: Floats
    tpot_ms: Floats

    def at(self, indices: Indices) -> "Headroom":
        return Headroom(self.ttft_ms[indices], self.tpot_ms[indices])


class HeadroomReader(Plugin, frozen=True):
    """What decides by headroom. The factor scales TPOT limits; without one of its own, a declared producer's does."""

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
    """What gives those that decide by headroom their factor."""

    slo_buffer_factor: Factor = 1.0


def headroom(request: Request, candidates: Snapshot, predictions: Predictions, buffer_factor: float) -> Headroom:
    """Headroom of each candidate; the TPOT limit is also that of the strictest request running there.

    The buffer factor scales TPOT limits. A request without any objective is measured against zero, which orders
    candidates by predicted latency alone.
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
    """Whether every candidate is busy, and is predicted to miss an objective of the request.

    A candidate without a prediction might meet them, and a request without objectives can't miss any.
    """
    predictions = candidates.predictions
    if predictions is None or (request.slo_ttft_ms is None and request.slo_tpot_ms is None):
        return False
    if not candidates.in_flight.all():
        return False
    room = headroom(request, candidates, predictions, buffer_factor)
    return bool(((room.ttft_ms <= 0) | (room.tpot_ms <= 0)).all())


def scale_to_unit(values: Floats) -> Floats | None:
    """Scaled to [0, 1], by the least and the greatest finite value; inf becomes 1. None when all are alike."""
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
    """By how much each misses; 0 for what is met or not asked."""
    return np.maximum(-left_ms, 0.0)
