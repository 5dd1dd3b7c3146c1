"""Inference of the Open Inference Protocol, shared by REST and gRPC: named tensors in, named tensors out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store import Feature
from predictor.answering import Run
from predictor.exceptions import InputError
from predictor.model import Array, Model
from predictor.signature import DATATYPES, Tensor


@dataclass(frozen=True, slots=True)
class RequestTensor:
    """An input tensor of a request. The array is flat, and its length is not checked yet."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: Array


@dataclass(frozen=True, slots=True)
class AnswerTensor:
    """An output tensor. The array's first dimension is the rows."""

    tensor: Tensor
    array: Array


def infer(
    model: Model, given: Sequence[RequestTensor], wanted: Sequence[str], began_ns: int
) -> tuple[list[AnswerTensor], Run]:
    """Run the model; return the wanted outputs, or all if none is named. Raise InputError for a wrong tensor."""
    outputs = _outputs(model, wanted)
    tensors = _tensors(model, given)
    rows = len(next(iter(tensors.values())))
    read_ns = time.perf_counter_ns()
    results = model.run(tensors, [tensor.name for tensor in outputs])
    ran_ns = time.perf_counter_ns()
    run = Run(model, rows, read_ns - began_ns, ran_ns - read_ns, 0)
    return [AnswerTensor(tensor, array) for tensor, array in zip(outputs, results, strict=True)], run


def datatype(name: str, datatype_name: str) -> "np.dtype[np.generic]":
    """Return numpy's type for a datatype; raise InputError for an unsupported one."""
    found = DATATYPES.get(datatype_name)
    if found is None:
        raise InputError(
            f"input {name!r}: datatype {datatype_name!r:.50} is not supported; known: {', '.join(DATATYPES)}"
        )
    return found


def check_range(where: str, datatype_name: str, numbers: Array) -> None:
    """Raise InputError if numbers of an integer datatype exceed its range."""
    dtype = DATATYPES[datatype_name]
    if dtype.kind in "iu" and numbers.size:
        limits = np.iinfo(dtype.name)
        if int(numbers.min()) < limits.min or int(numbers.max()) > limits.max:
            raise InputError(f"{where} out of the range of {datatype_name}")


def _outputs(model: Model, wanted: Sequence[str]) -> list[Tensor]:
    known = {tensor.name: tensor for tensor in model.signature.outputs}
    for name in wanted:
        if name not in known:
            raise InputError(f"output {name!r:.100}: unknown; {model.name} has {', '.join(known)}")
    return [known[name] for name in wanted] or list(known.values())


def _tensors(model: Model, given: Sequence[RequestTensor]) -> dict[str, Array]:
    signature = model.signature
    known = {tensor.name: tensor for tensor in signature.inputs}
    tensors: dict[str, Array] = {}
    for one in given:
        if one.name not in known:
            raise InputError(f"input {one.name!r:.100}: unknown; {model.name} has {', '.join(known)}")
        if one.name in tensors:
            raise InputError(f"input {one.name!r}: given twice")
        tensors[one.name] = _checked_array(one, known[one.name], signature.max_rows)
    rows = {len(array) for array in tensors.values()}
    if len(rows) > 1:
        raise InputError(f"inputs: the numbers of rows differ: { {n: len(a) for n, a in tensors.items()} }")
    if not tensors:
        raise InputError("inputs: none given")
    _check_features(signature.features, tensors)
    _fill(model, tensors, rows.pop())
    return tensors


def _checked_array(given: RequestTensor, tensor: Tensor, max_rows: int) -> Array:
    name = given.name
    if given.datatype != tensor.datatype:
        raise InputError(f"input {name!r}: expected datatype {tensor.datatype}, got {given.datatype:.50}")
    if not given.shape or not tensor.fits(given.shape):
        expected = [-1, *tensor.shape]
        raise InputError(f"input {name!r}: expected shape {expected}, got {list(given.shape)!s:.100}")
    if not 1 <= given.shape[0] <= max_rows:
        raise InputError(f"input {name!r}: expected 1 to {max_rows} rows, got {given.shape[0]}")
    if any(length < 0 for length in given.shape):
        raise InputError(f"input {name!r}: shape {list(given.shape)} has a negative length")
    try:
        return given.array.reshape(given.shape)
    except ValueError as error:
        text = f"input {name!r}: {given.array.size} elements do not make shape {list(given.shape)}"
        raise InputError(text) from error


def _check_features(features: Sequence[Feature], tensors: dict[str, Array]) -> None:
    """Check values against the features' ranges. They must be finite, or NaN where a feature may be missing."""
    for feature in features:
        values = tensors.get(feature.name)
        if values is None or values.dtype.kind not in "fiu":
            continue
        with np.errstate(invalid="ignore"):
            inside = (values >= feature.minimum) & np.isfinite(values)
            if feature.maximum is not None:
                inside &= values <= feature.maximum
        if isinstance(feature.default, str):
            inside |= np.isnan(values)
        if not inside.all():
            index = int(np.argmin(inside))
            top = f" and at most {feature.maximum:g}" if feature.maximum is not None else ""
            expected = f"a finite number, at least {feature.minimum:g}{top}"
            raise InputError(f"input {feature.name!r}: expected {expected}, got {values.flat[index]} at {index}")


def _fill(model: Model, tensors: dict[str, Array], rows: int) -> None:
    """Add the defaults of absent optional inputs; raise InputError for an absent required one."""
    absent = [tensor for tensor in model.signature.inputs if tensor.name not in tensors]
    fills = {feature.name: feature.fill_value for feature in model.signature.features}
    for tensor in absent:
        if not tensor.optional:
            raise InputError(f"input {tensor.name!r}: missing")
        tensors[tensor.name] = np.full((rows, *tensor.shape), fills[tensor.name], dtype=tensor.dtype)
