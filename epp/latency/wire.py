"""The rows that travel to predictors and to the trainer, as JSON: field names are those of the sidecar API."""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from epp.features import NAMES, FeatureMatrix
from model_store import POD_TYPE_CODES


class PredictionRow(msgspec.Struct, frozen=True):
    kv_cache_percentage: float
    input_token_length: int
    num_request_waiting: int
    num_request_running: int
    num_tokens_generated: int
    prefix_cache_score: float
    prefill_tokens_in_flight: int
    decode_tokens_in_flight: int
    encoder_matched_size: int
    encoder_input_size: int
    pod_type: str | None
    recent_prefill_ms_per_token: float | None
    recent_tpot_ms: float | None


class TrainingRow(PredictionRow, frozen=True):
    """A zero latency means that the row doesn't carry that target."""

    actual_ttft_ms: float = 0.0
    actual_tpot_ms: float = 0.0


class PredictionBatch(msgspec.Struct, frozen=True):
    requests: list[PredictionRow]


class Predicted(msgspec.Struct, frozen=True):
    ttft_ms: float
    tpot_ms: float


class PredictedBatch(msgspec.Struct, frozen=True):
    """`generation` is absent when another implementation answers."""

    predictions: list[Predicted]
    generation: int = 0


class TrainingBatch(msgspec.Struct, frozen=True):
    entries: list[TrainingRow]


def prediction_rows(matrix: FeatureMatrix) -> list[PredictionRow]:
    return [PredictionRow(**_fields(row)) for row in matrix.tolist()]


def training_row(features: list[float], *, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> TrainingRow:
    """A row of the feature matrix with what was then observed."""
    return TrainingRow(**_fields(features), actual_ttft_ms=ttft_ms, actual_tpot_ms=tpot_ms)


def _fields(row: list[float]) -> dict[str, Any]:
    """A matrix row as the wire wants it: counts as whole numbers, roles as texts, what is missing as None."""
    pairs = zip(NAMES, _KINDS, row, strict=True)
    return {name: None if math.isnan(value) else kind(value) for name, kind, value in pairs}


def _role(code: float) -> str | None:
    return next((role for role, known in POD_TYPE_CODES.items() if known == code), None)


_PLAIN = {"kv_cache_percentage", "prefix_cache_score", "recent_prefill_ms_per_token", "recent_tpot_ms"}
_KINDS: list[Callable[[float], Any]] = [_role if n == "pod_type" else float if n in _PLAIN else int for n in NAMES]
