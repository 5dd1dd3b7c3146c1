"""The signature of a model: its input and output tensors, in the Open Inference Protocol's terms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store import Feature

Matrix = NDArray[np.float32]

DATATYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `shape` excludes the batch dimension; -1 means any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return DATATYPES[self.datatype]

    @property
    def is_column(self) -> bool:
        """True if the tensor has exactly one number per row."""
        return self.shape in ((), (1,))

    def fits(self, shape: Sequence[int]) -> bool:
        """Return true if `shape`, which includes the batch dimension, matches this tensor."""
        row = tuple(shape[1:])
        return len(row) == len(self.shape) and all(want in (-1, got) for want, got in zip(self.shape, row, strict=True))


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs. `features` describe the inputs; they are empty unless all inputs are columns."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    features: tuple[Feature, ...]
    max_rows: int
