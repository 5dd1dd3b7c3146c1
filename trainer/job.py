"""What a pass hands to the fitter, and what it gets back."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from model_store import ROW_FEATURES, Manifest
from trainer.settings import JobSettings
from trainer.window import Rows, TargetData

# Before each message between the two processes: its length.
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of each target, the graphs that are being served, and where each target's present law began."""

    data: Mapping[str, TargetData]
    settings: JobSettings
    served: Mapping[str, bytes] = field(default_factory=dict)
    law_began_at: Mapping[str, int] = field(default_factory=dict)


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted model behind the gate. `refusal` and `refused_for`, the test that failed, are empty when it passed.

    `drift_score` is how many standard errors the newest rows are off, `law_began_at` the arrival number from which they
    obey another law, if they do, and `law_factor` by how much it is slower.
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
    intercept: float | None = None
    dump: bytes = b""
    drift_score: float = 0.0
    law_began_at: int | None = None
    law_factor: float = 1.0


class _RowsOnWire(msgspec.Struct, frozen=True):
    x: bytes
    y: bytes
    arrival: bytes


class _JobOnWire(msgspec.Struct, frozen=True):
    data: dict[str, tuple[_RowsOnWire, _RowsOnWire]]
    settings: JobSettings
    served: dict[str, bytes]
    law_began_at: dict[str, int]


class Answer(msgspec.Struct, frozen=True):
    """What the fitting process answers: models, or why there are none."""

    learnt: list[Learnt] = []
    error: str = ""


_decoder = msgspec.msgpack.Decoder(_JobOnWire)


def encode_job(job: Job) -> bytes:
    data = {name: (_pack(target.train), _pack(target.holdout)) for name, target in job.data.items()}
    return msgspec.msgpack.encode(_JobOnWire(data, job.settings, dict(job.served), dict(job.law_began_at)))


def decode_job(message: bytes) -> Job:
    wire = _decoder.decode(message)
    data = {name: TargetData(_unpack(train), _unpack(holdout)) for name, (train, holdout) in wire.data.items()}
    return Job(data, wire.settings, wire.served, wire.law_began_at)


def _pack(rows: Rows) -> _RowsOnWire:
    return _RowsOnWire(rows.x.tobytes(), rows.y.tobytes(), rows.arrival.tobytes())


def _unpack(rows: _RowsOnWire) -> Rows:
    y = np.frombuffer(rows.y, dtype=np.float32)
    x = np.frombuffer(rows.x, dtype=np.float32).reshape(len(y), len(ROW_FEATURES))
    return Rows(x, y, np.frombuffer(rows.arrival, dtype=np.int64))
