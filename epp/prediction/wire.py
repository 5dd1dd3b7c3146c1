"""The bodies sent to predictors and the trainer: JSON rows with the sidecar API's names, or binary columns."""

from typing import Literal

import msgspec
import numpy as np

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Floats, Predictions
from model_store import ROW_NAMES, FeatureRow, row_values

LengthSource = Literal["estimate", "tokenizer"]
_NUMBER = np.dtype("<f4")
_COLUMNS_HEAD = msgspec.json.encode({"features": ROW_NAMES, "medians": True}) + b"\n"


class TrainingRow(FeatureRow, frozen=True):
    """A training row. A latency of 0 means that the row doesn't carry that target."""

    actual_ttft_ms: float = 0.0
    actual_tpot_ms: float = 0.0
    input_length_source: LengthSource = "estimate"


class PredictionBatch(msgspec.Struct, frozen=True):
    requests: list[FeatureRow]


class ColumnsHead(msgspec.Struct, frozen=True):
    """The first line of an answer in columns."""

    generation: int


class Predicted(msgspec.Struct, frozen=True):
    ttft_ms: float
    tpot_ms: float


class PredictedBatch(msgspec.Struct, frozen=True):
    """An answer in rows. `generation` is absent when another implementation answers."""

    predictions: list[Predicted]
    generation: int = 0


class TrainingBatch(msgspec.Struct, frozen=True):
    entries: list[TrainingRow]


_encode = msgspec.json.Encoder().encode
_decode_batch = msgspec.json.Decoder(PredictedBatch).decode
_decode_head = msgspec.json.Decoder(ColumnsHead).decode


def columns_body(columns: FeatureColumns) -> bytes:
    """Encode [features, rows] for /predict/columns: a JSON line that names the features, then little-endian float32."""
    return _COLUMNS_HEAD + columns.astype(_NUMBER, copy=False).tobytes()


def predictions_of_columns(answer: bytes, rows: int) -> Predictions:
    """Decode an answer in columns; ValueError when the answer isn't one for `rows` rows."""
    end = answer.find(b"\n")
    numbers = len(answer) - end - 1
    if end < 0 or numbers not in (2 * rows * _NUMBER.itemsize, 4 * rows * _NUMBER.itemsize):
        raise ValueError(f"expected a line and two or four columns of {rows} numbers, got {len(answer)} bytes")
    latencies_ms = np.frombuffer(answer, _NUMBER, offset=end + 1).reshape(-1, rows).astype(np.float64)
    return _to_predictions(latencies_ms, _decode_head(answer[:end]).generation)


def rows_body(columns: FeatureColumns) -> bytes:
    """Encode [features, rows] as JSON for /predict/bulk/strict."""
    return _encode(PredictionBatch(prediction_rows(columns)))


def predictions_of_rows(answer: bytes, rows: int) -> Predictions:
    """Decode an answer in rows; ValueError or msgspec.DecodeError when the answer isn't one for `rows` rows."""
    batch = _decode_batch(answer)
    values = np.array([(p.ttft_ms, p.tpot_ms) for p in batch.predictions]).reshape(-1, 2)
    if len(values) != rows:
        raise ValueError(f"expected {rows} rows, got {len(values)}")
    return _to_predictions(values.T, batch.generation)


def _to_predictions(latencies_ms: Floats, generation: int) -> Predictions:
    """Build predictions from [latencies, rows]: TTFT, TPOT and, if given, the medians of both."""
    if not np.isfinite(latencies_ms).all():
        raise ValueError("a prediction is not a finite number")
    ttft_ms, tpot_ms, *medians_ms = latencies_ms
    return Predictions(ttft_ms, tpot_ms, generation, "remote", *medians_ms)


def prediction_rows(columns: FeatureColumns) -> list[FeatureRow]:
    """Build one row per column of [features, rows]."""
    return [FeatureRow(*values) for values in row_values(columns)]


def training_row(
    features: FeatureColumns, *, ttft_ms: float = 0.0, tpot_ms: float = 0.0, length_source: LengthSource = "estimate"
) -> TrainingRow:
    """Build a training row from features [features, 1] and the observed latencies in ms."""
    (values,) = row_values(features)
    return TrainingRow(*(*values, ttft_ms, tpot_ms, length_source))
