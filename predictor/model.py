"""A model ready to answer."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from model_store import Manifest
from predictor.signature import Matrix, Signature
from predictor.single_row import SingleRow
from predictor.statistics import Statistics

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version of a model. `manifest` is None where the store holds the graph alone."""

    name: str
    version: int
    signature: Signature
    manifest: Manifest | None
    identity: Hashable
    session: ort.InferenceSession
    single_row: SingleRow | None
    statistics: Statistics = field(default_factory=Statistics)

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The outputs for a batch of named tensors; those that are absent must be optional."""
        answer: list[Array] = self.session.run(outputs, tensors)
        return answer

    def predict(self, columns: Matrix) -> list[Array]:
        """From [features, rows] to every output, in the signature's order. Not for models without features."""
        if self.single_row and columns.shape[1] == 1:
            return self.single_row.run(columns)
        tensors = {
            tensor.name: column.reshape(-1, *tensor.shape).astype(tensor.dtype, copy=False)
            for tensor, column in zip(self.signature.inputs, columns, strict=True)
        }
        return self.run(tensors, [output.name for output in self.signature.outputs])
