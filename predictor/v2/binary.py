"""Tensors as raw bytes: little-endian, row-major, booleans a byte each; the Open Inference Protocol's binary form."""

import numpy as np

from predictor.exceptions import InputError
from predictor.model import Array
from predictor.v2.inference import datatype


def from_bytes(name: str, said: str, data: bytes | memoryview) -> Array:
    """The flat array in `data`; InputError when it is no whole number of elements, or a boolean is not 0 or 1."""
    dtype = datatype(name, said)
    if len(data) % dtype.itemsize:
        raise InputError(f"input {name!r}: {len(data)} bytes are no whole number of {said} elements")
    if dtype.kind == "b":
        numbers = np.frombuffer(data, np.uint8)
        if numbers.size and numbers.max() > 1:
            raise InputError(f"input {name!r}: a BOOL is a byte of 0 or 1, got {numbers.max()}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)


def to_bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
