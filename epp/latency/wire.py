"""The rows that travel to predictors and to the trainer, as JSON: field names are those of the sidecar API."""

import math

import msgspec

from epp.features import FeatureMatrix


class PredictionRow(msgspec.Struct, frozen=True):
    kv_cache_percentage: float
    input_token_length: int
    num_request_waiting: int
    num_request_running: int
    num_tokens_generated: int
    prefix_cache_score: float
    prefill_tokens_in_flight: int
    decode_tokens_in_flight: int
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
    return [PredictionRow(*_values(row)) for row in matrix.tolist()]


def training_row(features: list[float], *, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> TrainingRow:
    """A row of the feature matrix with what was then observed."""
    return TrainingRow(*_values(features), actual_ttft_ms=ttft_ms, actual_tpot_ms=tpot_ms)


def _values(row: list[float]) -> tuple[float, int, int, int, int, float, int, int, float | None, float | None]:
    kv, tokens, waiting, running, generated, prefix, prefill, decode, recent_prefill, recent_tpot = row
    return (
        kv,
        int(tokens),
        int(waiting),
        int(running),
        int(generated),
        prefix,
        int(prefill),
        int(decode),
        None if math.isnan(recent_prefill) else recent_prefill,
        None if math.isnan(recent_tpot) else recent_tpot,
    )
