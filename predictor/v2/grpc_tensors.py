"""Conversion of tensors from and to the protocol's gRPC messages: raw bytes or repeated numbers."""

from collections.abc import Sequence

import numpy as np

from predictor.exceptions import InputError
from predictor.model import Array, Model
from predictor.protocol import inference_pb2 as pb
from predictor.v2.binary import from_bytes, to_bytes
from predictor.v2.inference import AnswerTensor, RequestTensor, check_range, datatype

# The message field that carries each datatype's numbers. Half floats have none.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def read_request(request: pb.ModelInferRequest) -> list[RequestTensor]:
    """Decode the request's tensors; raise InputError if contents and raw_input_contents are mixed."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"raw_input_contents: {len(raw)} for {len(request.inputs)} inputs; expected one per input")
    given = []
    for index, tensor in enumerate(request.inputs):
        if "shared_memory_region" in tensor.parameters:
            raise InputError(f"input {tensor.name!r}: shared memory is not supported")
        if raw and tensor.HasField("contents"):
            raise InputError(f"input {tensor.name!r}: contents and raw_input_contents are both given")
        array = from_bytes(tensor.name, tensor.datatype, raw[index]) if raw else _from_contents(tensor)
        given.append(RequestTensor(tensor.name, tensor.datatype, tuple(tensor.shape), array))
    return given


def write_answer(model: Model, request_id: str, answered: Sequence[AnswerTensor]) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request_id)
    for one in answered:
        answer.outputs.add(name=one.tensor.name, datatype=one.tensor.datatype, shape=one.array.shape)
        answer.raw_output_contents.append(to_bytes(one.array))
    return answer


def _from_contents(tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
    dtype = datatype(tensor.name, tensor.datatype)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InputError(f"input {tensor.name!r}: {tensor.datatype} is accepted only in raw_input_contents")
    numbers = np.array(getattr(tensor.contents, field))
    check_range(f"input {tensor.name!r}: contents", tensor.datatype, numbers)
    return numbers.astype(dtype)
