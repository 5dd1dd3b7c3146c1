"""The Open Inference Protocol's binary form of tensors: little-endian, row-major, one byte per boolean."""

import numpy as np

from predictor.exceptions import InputError
from predictor.model import Array
from predictor.v2.inference import datatype


def from_bytes(name: str, datatype_name: str, data: bytes | memoryview) -> Array:
    """Decode `data` to a flat array; raise InputError for a partial element, or a boolean other than 0 or 1."""
    dtype = datatype(name, datatype_name)
    if len(data) % dtype.itemsize:
        raise InputError(f"input {name!r}: {len(data)} bytes are not a whole number of {datatype_name} elements")
    if dtype.kind == "b":
        numbers = np.frombuffer(data, np.uint8)
        if numbers.size and numbers.max() > 1:
            raise InputError(f"input {name!r}: expected 0 or 1 for a BOOL, got {numbers.max()}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)


def to_bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
