"""The messages between a training pass and the fitter: jobs, fitted models and answers."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from model_store import ROW_FEATURES, Manifest
from trainer.settings import JobSettings
from trainer.window import Rows, TargetData

# The prefix of each message between the two processes: its length in bytes.
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of each target, the served graphs, and the arrival number at which each target's present law began."""

    data: Mapping[str, TargetData]
    settings: JobSettings
    served: Mapping[str, bytes] = field(default_factory=dict)
    law_began_at: Mapping[str, int] = field(default_factory=dict)


class FittedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted model and the gate's verdict.

    `refusal`: the reason for which the gate refused it. `refused_for`: the test that failed. Both are empty if it
    passed. `drift_score`: standard errors by which the newest rows differ. `law_began_at`: the arrival number from
    which rows follow another law, or None. `law_factor`: the ratio of that law's latencies to the earlier ones.
    `effects`: by what share each feature changes predictions.
    `doubted_rows`: the number of training rows that the fit counts less or shorter; `doubted`: the newest of these.
    """

    manifest: Manifest
    onnx: bytes
    refusal: str = ""
    refused_for: str = ""
    fit_s: float
    export_s: float
    gate_s: float
    incremental: bool = False
    trees: int = 0
    importances: dict[str, float] = {}
    effects: dict[str, float] = {}
    intercept: float | None = None
    dump: bytes = b""
    drift_score: float = 0.0
    law_began_at: int | None = None
    law_factor: float = 1.0
    doubted_rows: int = 0
    doubted: list[dict[str, float | None]] = []


class _RowsOnWire(msgspec.Struct, frozen=True):
    x: bytes
    y: bytes
    arrival: bytes


class _JobOnWire(msgspec.Struct, frozen=True):
    data: dict[str, tuple[_RowsOnWire, _RowsOnWire, _RowsOnWire]]
    settings: JobSettings
    served: dict[str, bytes]
    law_began_at: dict[str, int]


class Answer(msgspec.Struct, frozen=True):
    """The fitting process's answer: models, or an error text."""

    models: list[FittedModel] = []
    error: str = ""


_decoder = msgspec.msgpack.Decoder(_JobOnWire)


def encode_job(job: Job) -> bytes:
    data = {name: (_pack(of.train), _pack(of.holdout), _pack(of.older)) for name, of in job.data.items()}
    return msgspec.msgpack.encode(_JobOnWire(data, job.settings, dict(job.served), dict(job.law_began_at)))


def decode_job(message: bytes) -> Job:
    wire = _decoder.decode(message)
    data = {name: TargetData(*map(_unpack, parts)) for name, parts in wire.data.items()}
    return Job(data, wire.settings, wire.served, wire.law_began_at)


def _pack(rows: Rows) -> _RowsOnWire:
    return _RowsOnWire(rows.x.tobytes(), rows.y.tobytes(), rows.arrival.tobytes())


def _unpack(rows: _RowsOnWire) -> Rows:
    y = np.frombuffer(rows.y, dtype=np.float32)
    x = np.frombuffer(rows.x, dtype=np.float32).reshape(len(y), len(ROW_FEATURES))
    return Rows(x, y, np.frombuffer(rows.arrival, dtype=np.int64))
