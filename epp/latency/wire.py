"""The rows that travel to predictors and to the trainer, as JSON: field names are those of the sidecar API."""

import math
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from epp.features import FeatureColumns
from model_store import POD_TYPE_CODES, ROW_NAMES

LengthSource = Literal["estimate", "tokenizer"]
_FRACTIONS = {"kv_cache_percentage", "prefix_cache_score"}
_OPTIONAL = {"recent_prefill_ms_per_token", "recent_tpot_ms"}
_ROLES = {code: role for role, code in POD_TYPE_CODES.items()}


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
    input_length_source: LengthSource = "estimate"


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


def prediction_rows(columns: FeatureColumns) -> list[PredictionRow]:
    """From [features, rows]: counts as whole numbers, roles as texts, what is missing as None."""
    return [PredictionRow(*values) for values in _rows(columns)]


def training_row(
    features: FeatureColumns, *, ttft_ms: float = 0.0, tpot_ms: float = 0.0, length_source: LengthSource = "estimate"
) -> TrainingRow:
    """From [features, 1] and what was then observed."""
    (values,) = _rows(features)
    return TrainingRow(*(*values, ttft_ms, tpot_ms, length_source))


def _rows(columns: FeatureColumns) -> "zip[tuple[Any, ...]]":
    return zip(*(_wire_values(name, column) for name, column in zip(ROW_NAMES, columns, strict=True)), strict=True)


def _wire_values(name: str, column: NDArray[np.float32]) -> list[Any]:
    values: list[Any] = column.tolist()
    if name in _FRACTIONS:
        return values
    if name in _OPTIONAL:
        return [None if math.isnan(value) else value for value in values]
    if name == "pod_type":
        return [_ROLES.get(value) for value in values]
    return [round(value) for value in values]
