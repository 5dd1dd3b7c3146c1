"""Decoding and encoding of REST inference bodies: JSON with the tensors inside, or followed by raw bytes.

The binary form: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from predictor.exceptions import InputError
from predictor.http import encode
from predictor.model import Array, Model
from predictor.v2.binary import from_bytes, to_bytes
from predictor.v2.inference import AnswerTensor, RequestTensor, check_range, datatype

Parameters = dict[str, str | int | float | bool | None]


class InputTensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class OutputTensor(msgspec.Struct, frozen=True):
    name: str
    parameters: Parameters = {}


class InferBody(msgspec.Struct, frozen=True):
    inputs: list[InputTensor]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[OutputTensor] = []


_decoder = msgspec.json.Decoder(InferBody)


def read_request(body: bytes, header_length: bytes | None) -> tuple[InferBody, list[RequestTensor]]:
    """Decode a body to its document and tensors. `header_length` is the header Inference-Header-Content-Length."""
    length = len(body) if header_length is None else _length(header_length, len(body))
    try:
        document = _decoder.decode(memoryview(body)[:length])
    except msgspec.ValidationError as error:
        raise InputError(f"the request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the request is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("the request is nested too deeply") from error
    rest = memoryview(body)[length:]
    given = []
    for tensor in document.inputs:
        size = _binary_size(tensor)
        if size is None:
            array = _from_json(tensor)
        elif size > len(rest):
            raise InputError(f"input {tensor.name!r}: binary_data_size is {size}, but only {len(rest)} bytes are left")
        else:
            array = from_bytes(tensor.name, tensor.datatype, rest[:size])
            rest = rest[size:]
        given.append(RequestTensor(tensor.name, tensor.datatype, tuple(tensor.shape), array))
    if len(rest):
        raise InputError(f"{len(rest)} bytes follow the last input's binary data")
    return document, given


def write_answer(model: Model, document: InferBody, answered: Sequence[AnswerTensor]) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON if raw bytes follow, else None."""
    asked = {output.name: output.parameters for output in document.outputs}
    outputs, raw = [], []
    for one in answered:
        described: dict[str, Any] = {
            "name": one.tensor.name,
            "datatype": one.tensor.datatype,
            "shape": one.array.shape,
        }
        if _is_binary(asked.get(one.tensor.name, {}), document.parameters):
            data = to_bytes(one.array)
            described["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            described["data"] = _to_json(one.array)
        outputs.append(described)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
    if document.id:
        answer["id"] = document.id
    head = encode(answer)
    return b"".join((head, *raw)), len(head) if raw else None


def _length(text: bytes, available: int) -> int:
    if not text.isdigit() or int(text) > available:
        shown = text.decode("latin-1")
        raise InputError(f"inference-header-content-length: expected 0 to {available} bytes, got {shown:.50}")
    return int(text)


def _binary_size(tensor: InputTensor) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"input {tensor.name!r}: binary_data_size: expected a number of bytes, got {size!r:.50}")
    if tensor.data is not None:
        raise InputError(f"input {tensor.name!r}: has both data and binary_data_size")
    return size


def _is_binary(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    return bool(parameters.get("binary_data", defaults.get("binary_data_output", False)))


def _from_json(tensor: InputTensor) -> Array:
    """Decode flat or nested numbers to a flat array. null becomes NaN for floating-point datatypes."""
    dtype = datatype(tensor.name, tensor.datatype)
    if tensor.data is None:
        raise InputError(f"input {tensor.name!r}: has neither data nor binary_data_size")
    try:
        found = np.array(tensor.data)
        if found.dtype.kind == "O" and dtype.kind == "f":
            found = np.array(tensor.data, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"input {tensor.name!r}: data: {error}") from error
    kinds = {"b": "b", "f": "fiu", "i": "iu", "u": "iu"}[dtype.kind]
    if found.size and found.dtype.kind not in kinds:
        raise InputError(f"input {tensor.name!r}: data: expected {tensor.datatype} numbers, got {found.dtype}")
    check_range(f"input {tensor.name!r}: data:", tensor.datatype, found)
    with np.errstate(over="ignore"):
        return found.astype(dtype).ravel()


def _to_json(array: Array) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    return flat
