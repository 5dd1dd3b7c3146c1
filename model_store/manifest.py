"""The documents of a model store: the manifest of each model version and the record of each generation."""

import hashlib
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from model_store.exceptions import DamagedError
from model_store.features import Feature

FORMAT = 1


class ModelFile(msgspec.Struct, frozen=True):
    """The name, sha256 and size of a model's file."""

    name: str
    sha256: str
    size_bytes: int


class Output(msgspec.Struct, frozen=True):
    """One output column; `quantile` is None for a mean."""

    name: str
    unit: str = "ms"
    quantile: float | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a reader needs to serve a model and to tell its origin.

    `inputs` are the graph's inputs in order, each a float32 column of shape [rows, 1]; `outputs` likewise.
    """

    format: int = FORMAT
    model: str
    version: int = 0
    file: ModelFile = ModelFile("model.onnx", "", 0)
    inputs: tuple[Feature, ...]
    outputs: tuple[Output, ...]
    model_type: str
    objective: str
    train_samples: int = 0
    holdout_samples: int = 0
    holdout_scores: dict[str, float] = {}
    trained_at: datetime
    trainer_id: str
    parent_version: int | None = None


class ModelRef(msgspec.Struct, frozen=True):
    """A model version that a generation names, and the hash of that version's manifest."""

    version: int
    manifest_sha256: str


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of model versions that become visible together."""

    generation: int
    models: dict[str, ModelRef]
    published_at: datetime
    format: int = FORMAT

    @property
    def age_s(self) -> float:
        return max(0.0, (datetime.now(UTC) - self.published_at).total_seconds())


T = TypeVar("T", Manifest, Generation)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def encode(document: Manifest | Generation) -> bytes:
    """Return the document as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(data: bytes, kind: type[T], where: str) -> T:
    """Decode and check a document; raise DamagedError that names `where` and the wrong field."""
    try:
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"{where} is not a {kind.__name__.lower()}: {error}") from error
    if document.format != FORMAT:
        raise DamagedError(f"{where} has format {document.format}, but this version reads format {FORMAT}")
    return document


def has_other_format(data: bytes) -> bool:
    """Return true if the data may be a whole document of another format, which another version of Headroom wrote."""
    try:
        return msgspec.json.decode(data, type=_Formatted).format != FORMAT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Formatted(msgspec.Struct, frozen=True):
    format: int = FORMAT


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's main fields as short texts, for the metadata inside a model file."""
    return {
        "model": manifest.model,
        "model_type": manifest.model_type,
        "objective": manifest.objective,
        "quantiles": ",".join("mean" if o.quantile is None else f"{o.quantile:g}" for o in manifest.outputs),
        "inputs": ",".join(f"{f.name}:{f.unit}" for f in manifest.inputs),
        "outputs": ",".join(f"{o.name}:{o.unit}" for o in manifest.outputs),
        "train_samples": str(manifest.train_samples),
        "trained_at": manifest.trained_at.isoformat(),
        "trainer_id": manifest.trainer_id,
    }
