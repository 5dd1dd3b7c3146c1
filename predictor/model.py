"""A loaded model."""

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
    """One loaded version of a model. `manifest` is None if the store has only the graph."""

    name: str
    version: int
    signature: Signature
    manifest: Manifest | None
    identity: Hashable
    session: ort.InferenceSession
    single_row: SingleRow | None
    statistics: Statistics = field(default_factory=Statistics)

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the graph on a batch of named tensors; return the named outputs, or all of them."""
        answer: list[Array] = self.session.run(outputs, tensors)
        return answer

    def predict(self, columns: Matrix) -> list[Array]:
        """Predict from `columns` [features, rows]; return all outputs in the signature's order.

        The model must have features.
        """
        if self.single_row and columns.shape[1] == 1:
            return self.single_row.run(columns)
        tensors = {
            tensor.name: column.reshape(-1, *tensor.shape).astype(tensor.dtype, copy=False)
            for tensor, column in zip(self.signature.inputs, columns, strict=True)
        }
        return self.run(tensors, [output.name for output in self.signature.outputs])
