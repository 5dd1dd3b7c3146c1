"""Decoding of request bodies: JSON or MessagePack from clients becomes columns for the window."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_store import FeatureRow, row_matrix
from model_store.features import Milliseconds
from serving.wrong_field import locate
from trainer.exceptions import EntryError

Matrix = NDArray[np.float32]
T = TypeVar("T")


class TrainingEntry(FeatureRow, frozen=True, kw_only=True):
    """One observation. A latency of 0 means that the sample has no value for that target."""

    actual_ttft_ms: Milliseconds
    actual_tpot_ms: Milliseconds


class TrainingBatch(msgspec.Struct, frozen=True):
    entries: list[TrainingEntry]


class FlushRequest(msgspec.Struct, frozen=True):
    flush_training_data: bool = True
    flush_test_data: bool = True
    flush_metrics: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """The columns of a batch: `features` [rows, ROW_FEATURES], NaN if missing; latencies in ms, 0 if absent."""

    features: Matrix
    ttft_ms: Matrix
    tpot_ms: Matrix

    def __len__(self) -> int:
        return len(self.features)

    def part(self, index: NDArray[np.bool_] | slice) -> "Samples":
        """Return the samples where `index` is true, or those of a slice."""
        return Samples(self.features[index], self.ttft_ms[index], self.tpot_ms[index])


def join(batches: Sequence[Samples]) -> Samples:
    """Concatenate batches in order."""
    features, ttft_ms, tpot_ms = (
        np.concatenate([getattr(batch, column) for batch in batches]) for column in ("features", "ttft_ms", "tpot_ms")
    )
    return Samples(features, ttft_ms, tpot_ms)


# By content type. Any other type is decoded as JSON.
_BATCHES: dict[str, msgspec.json.Decoder[TrainingBatch] | msgspec.msgpack.Decoder[TrainingBatch]] = {
    "application/json": msgspec.json.Decoder(TrainingBatch),
    "application/msgpack": msgspec.msgpack.Decoder(TrainingBatch),
}
_flush = msgspec.json.Decoder(FlushRequest)
_latencies = attrgetter("actual_ttft_ms", "actual_tpot_ms")
_request = msgspec.json.Decoder(FeatureRow)


def decode_batch(body: bytes, content_type: str = "application/json") -> Samples:
    """Decode a batch of samples; raise EntryError with the path to the first wrong field."""
    entries = _decode(_BATCHES.get(content_type, _BATCHES["application/json"]), body).entries
    latencies = np.array([_latencies(entry) for entry in entries], dtype=np.float32).reshape(-1, 2)
    return Samples(row_matrix(entries), latencies[:, 0], latencies[:, 1])


def decode_prediction(body: bytes) -> Matrix:
    """Decode one row as [1, ROW_FEATURES]; raise EntryError with the path to the first wrong field."""
    return row_matrix([_decode(_request, body)])


def decode_flush(body: bytes) -> FlushRequest:
    return _decode(_flush, body) if body else FlushRequest()


def _decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise EntryError(*locate(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EntryError(["body"], f"can't be decoded: {error}") from error
