"""From a model's bytes to a model that answers. The bytes are untrusted input: all is checked before it may serve."""

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from model_store import Feature, Manifest
from predictor.exceptions import ModelError
from predictor.graph_check import refusal
from predictor.model import Array, Model
from predictor.signature import DATATYPES, Signature, Tensor
from predictor.single_row import SingleRow, can_bind

# Also the warm-up: the batch sizes that a router usually asks for.
_PROBE_ROWS = (1, 10, 100)
_PROBE_LIMIT_S = 10.0
_ORT_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    **{f"tensor({name.lower()})": name for name in DATATYPES if "INT" in name},
}
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Source:
    """A version as it was read: its graph, and what is said about it beside the graph.

    `identity` differs when the same version's files do. `max_batch_size` is Triton's, 0 where it says nothing.
    """

    name: str
    version: int
    onnx: bytes
    manifest: Manifest | None = None
    identity: Hashable = None
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may cost."""

    model_bytes: int = 64 << 20
    rows: int = 10_000


LIMITS = Limits()


def open_model(source: Source, limits: Limits) -> Model:
    """A model that has answered batches of the usual sizes; ModelError with the reason otherwise."""
    if len(source.onnx) > limits.model_bytes:
        raise _refused(source, f"{len(source.onnx)} bytes, the limit is {limits.model_bytes}")
    reason = refusal(source.onnx)
    if reason:
        raise _refused(source, reason)
    session = _session(source)
    max_rows = min(limits.rows, source.max_batch_size or limits.rows)
    signature = _signature(source, session, max_rows)
    bindable = can_bind(signature.inputs, signature.outputs)
    bound = SingleRow(session, signature.inputs, signature.outputs) if bindable else None
    model = Model(source.name, source.version, signature, source.manifest, source.identity, session, bound)
    _probe(model, source)
    return model


def _refused(source: Source, reason: str) -> ModelError:
    return ModelError(source.name, source.version, reason)


def _session(source: Source) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Arenas keep what their largest batch took; without them memory stays flat over any number of reloads.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(source.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        raise _refused(source, str(error)) from error


def _signature(source: Source, session: ort.InferenceSession, max_rows: int) -> Signature:
    inputs = tuple(_tensor(source, value) for value in session.get_inputs())
    outputs = tuple(_tensor(source, value) for value in session.get_outputs())
    if not inputs or not outputs:
        raise _refused(source, "the graph has no inputs or no outputs")
    if source.manifest is None:
        features = _plain_features(inputs) if all(tensor.is_column for tensor in inputs) else ()
        return Signature(inputs, outputs, features, max_rows)
    return _published_signature(source, source.manifest, inputs, outputs, max_rows)


def _published_signature(
    source: Source, manifest: Manifest, inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_rows: int
) -> Signature:
    """The graph's tensors in the manifest's order, which must be all of the inputs and some of the outputs."""
    said = [feature.name for feature in manifest.inputs]
    found = {tensor.name: tensor for tensor in inputs}
    if sorted(found) != sorted(said) or any((t.datatype, t.shape) != ("FP32", (1,)) for t in inputs):
        raise _refused(source, f"the graph's inputs {_told(inputs)} contradict the manifest's {sorted(said)}")
    given = {tensor.name: tensor for tensor in outputs}
    named = [output.name for output in manifest.outputs]
    if not named or not set(named) <= set(given):
        raise _refused(source, f"the graph's outputs {_told(outputs)} lack the manifest's {sorted(named)}")
    if any(not given[name].is_column for name in named):
        raise _refused(source, f"the graph's outputs {_told(outputs)} are not single columns")
    columns = (Tensor(feature.name, "FP32", (1,), optional=not feature.required) for feature in manifest.inputs)
    return Signature(tuple(columns), tuple(given[name] for name in named), manifest.inputs, max_rows)


def _tensor(source: Source, value: Any) -> Tensor:
    datatype = _ORT_DATATYPES.get(value.type)
    if datatype is None:
        raise _refused(source, f"{value.name} is a {value.type}; numbers and booleans are served")
    if not value.shape or isinstance(value.shape[0], int):
        raise _refused(source, f"{value.name} has shape {value.shape}: its first dimension must be free, for the rows")
    return Tensor(value.name, datatype, tuple(n if isinstance(n, int) else -1 for n in value.shape[1:]))


def _plain_features(inputs: Sequence[Tensor]) -> tuple[Feature, ...]:
    """A graph alone says nothing of units and ranges: any finite number will do."""
    return tuple(Feature(tensor.name, "", minimum=-_LARGEST) for tensor in inputs)


def _told(tensors: Sequence[Tensor]) -> list[str]:
    return sorted(f"{tensor.name} {tensor.datatype}{list(tensor.shape)}" for tensor in tensors)


def _probe(model: Model, source: Source) -> None:
    """The model must answer plausible batches, in time, with finite numbers of the right shape."""
    names = [output.name for output in model.signature.outputs]
    options = ort.RunOptions()
    alarm = threading.Timer(_PROBE_LIMIT_S, lambda: setattr(options, "terminate", True))
    alarm.start()
    try:
        for rows in (rows for rows in _PROBE_ROWS if rows <= model.signature.max_rows):
            _check_answer(source, model.signature, rows, _ask(source, model, names, rows, options))
    finally:
        alarm.cancel()


def _ask(source: Source, model: Model, names: list[str], rows: int, options: ort.RunOptions) -> list[Array]:
    try:
        answer: list[Array] = model.session.run(names, _plausible(model.signature, rows), options)
    except Exception as error:  # as above
        raise _refused(source, f"does not answer a batch of {rows} rows: {error}") from error
    return answer


def _check_answer(source: Source, signature: Signature, rows: int, answer: list[Array]) -> None:
    for output, values in zip(signature.outputs, answer, strict=True):
        if len(values) != rows or not output.fits(values.shape):
            raise _refused(source, f"answers a batch of {rows} rows with {output.name} of shape {values.shape}")
        if not np.isfinite(values).all():
            raise _refused(source, f"answers a batch of {rows} rows with {output.name} that are no finite numbers")


def _plausible(signature: Signature, rows: int) -> dict[str, Array]:
    """Ones, or the middles of the features' ranges."""
    known = [f.plausible_value if f.required else f.fill_value for f in signature.features]
    values = known or [1.0] * len(signature.inputs)
    return {
        tensor.name: np.full((rows, *(max(n, 1) for n in tensor.shape)), value).astype(tensor.dtype)
        for tensor, value in zip(signature.inputs, values, strict=True)
    }
