"""Loading a model from its bytes. The bytes are untrusted, so the model is checked and probed before it may serve."""

import math
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from model_store import Feature, Manifest
from model_store.graph_check import refusal
from predictor.exceptions import ModelError
from predictor.model import Array, Model
from predictor.signature import DATATYPES, Signature, Tensor
from predictor.single_row import SingleRow, can_bind

# Batch sizes to probe a model with. A router usually sends such sizes, so the probe also warms the model up.
_PROBE_ROWS = (1, 10, 100)
# The most memory of one probe's inputs.
_LARGEST_PROBE_BYTES = 16 << 20
# Time for a model to answer all probes.
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
    """A version as read from the store: its graph and the settings stored with the graph.

    `identity` changes when the version's files change. `max_batch_size` is that of config.pbtxt, 0 if it has none.
    """

    name: str
    version: int
    onnx: bytes
    manifest: Manifest | None = None
    identity: Hashable = None
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest model file in bytes, and the largest batch in rows."""

    model_bytes: int = 64 << 20
    rows: int = 10_000


LIMITS = Limits()


def open_model(source: Source, limits: Limits, is_tried: bool = False, is_whole_batch: bool = False) -> Model:
    """Load a model and probe it with batches of the usual sizes; raise ModelError with the reason if it fails.

    `is_tried`: the graph has been checked already, which for a large one would hold up other threads.
    `is_whole_batch`: probe with the largest batch too.
    """
    if len(source.onnx) > limits.model_bytes:
        raise _model_error(
            source, f"the file has {len(source.onnx)} bytes, but the limit is {limits.model_bytes}", "files"
        )
    reason = None if is_tried else refusal(source.onnx)
    if reason:
        raise _model_error(source, reason)
    session = _session(source)
    max_rows = min(limits.rows, source.max_batch_size or limits.rows)
    signature = _signature(source, session, max_rows)
    bindable = can_bind(signature.inputs, signature.outputs)
    bound = SingleRow(session, signature.inputs, signature.outputs) if bindable else None
    model = Model(source.name, source.version, signature, source.manifest, source.identity, session, bound)
    _probe(model, source, (*_PROBE_ROWS, _largest_batch(signature)) if is_whole_batch else _PROBE_ROWS)
    return model


def _largest_batch(signature: Signature) -> int:
    """Return the most rows that a request may have, or fewer if they took much memory by themselves."""
    row_bytes = sum(tensor.dtype.itemsize * math.prod(map(abs, tensor.shape)) for tensor in signature.inputs)
    return max(1, min(signature.max_rows, _LARGEST_PROBE_BYTES // row_bytes))


def _model_error(source: Source, reason: str, kind: str = "graph") -> ModelError:
    return ModelError(source.name, source.version, reason, kind)


def _session(source: Source) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # An arena keeps the memory of its largest batch. Without arenas, memory stays flat over any number of reloads.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(source.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class, derived from Exception, for each status code
        raise _model_error(source, str(error)) from error


def _signature(source: Source, session: ort.InferenceSession, max_rows: int) -> Signature:
    inputs = tuple(_tensor(source, value) for value in session.get_inputs())
    outputs = tuple(_tensor(source, value) for value in session.get_outputs())
    if not inputs or not outputs:
        raise _model_error(source, "the graph has no inputs or no outputs")
    if source.manifest is None:
        features = _unbounded_features(inputs) if all(tensor.is_column for tensor in inputs) else ()
        return Signature(inputs, outputs, features, max_rows)
    return _published_signature(source, source.manifest, inputs, outputs, max_rows)


def _published_signature(
    source: Source, manifest: Manifest, inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_rows: int
) -> Signature:
    """Return the graph's tensors in the manifest's order; it must name all inputs and at least one output."""
    listed = [feature.name for feature in manifest.inputs]
    found = {tensor.name: tensor for tensor in inputs}
    if sorted(found) != sorted(listed) or any((t.datatype, t.shape) != ("FP32", (1,)) for t in inputs):
        raise _model_error(source, f"the graph's inputs {_describe(inputs)} contradict the manifest's {sorted(listed)}")
    given = {tensor.name: tensor for tensor in outputs}
    named = [output.name for output in manifest.outputs]
    if not named or not set(named) <= set(given):
        raise _model_error(source, f"the graph's outputs {_describe(outputs)} lack the manifest's {sorted(named)}")
    if any(not given[name].is_column for name in named):
        raise _model_error(source, f"the graph's outputs {_describe(outputs)} are not single columns")
    columns = (Tensor(feature.name, "FP32", (1,), optional=not feature.required) for feature in manifest.inputs)
    return Signature(tuple(columns), tuple(given[name] for name in named), manifest.inputs, max_rows)


def _tensor(source: Source, value: Any) -> Tensor:
    datatype = _ORT_DATATYPES.get(value.type)
    if datatype is None:
        raise _model_error(source, f"{value.name} is a {value.type}; only numbers and booleans are supported")
    if not value.shape or isinstance(value.shape[0], int):
        raise _model_error(source, f"{value.name} has shape {value.shape}: its first dimension must be free for rows")
    return Tensor(value.name, datatype, tuple(n if isinstance(n, int) else -1 for n in value.shape[1:]))


def _unbounded_features(inputs: Sequence[Tensor]) -> tuple[Feature, ...]:
    """Return features that accept any finite number: without a manifest, units and ranges are unknown."""
    return tuple(Feature(tensor.name, "", minimum=-_LARGEST) for tensor in inputs)


def _describe(tensors: Sequence[Tensor]) -> list[str]:
    return sorted(f"{tensor.name} {tensor.datatype}{list(tensor.shape)}" for tensor in tensors)


def _probe(model: Model, source: Source, batches: Sequence[int]) -> None:
    """Require that the model answers valid batches, in time, with finite numbers of the right shape."""
    names = [output.name for output in model.signature.outputs]
    options = ort.RunOptions()
    alarm = threading.Timer(_PROBE_LIMIT_S, lambda: setattr(options, "terminate", True))
    alarm.start()
    try:
        for rows in (rows for rows in batches if rows <= model.signature.max_rows):
            _check_answer(source, model.signature, rows, _ask(source, model, names, rows, options))
    finally:
        alarm.cancel()


def _ask(source: Source, model: Model, names: list[str], rows: int, options: ort.RunOptions) -> list[Array]:
    try:
        answer: list[Array] = model.session.run(names, _example_batch(model.signature, rows), options)
    except Exception as error:  # onnxruntime's classes, as in `_session`
        raise _model_error(source, f"does not answer a batch of {rows} rows: {error}", "trial") from error
    return answer


def _check_answer(source: Source, signature: Signature, rows: int, answer: list[Array]) -> None:
    for output, values in zip(signature.outputs, answer, strict=True):
        if len(values) != rows or not output.fits(values.shape):
            raise _model_error(
                source, f"answers a batch of {rows} rows with {output.name} of shape {values.shape}", "trial"
            )
        if not np.isfinite(values).all():
            raise _model_error(
                source, f"answers a batch of {rows} rows with non-finite numbers in {output.name}", "trial"
            )


def _example_batch(signature: Signature, rows: int) -> dict[str, Array]:
    """Return a valid batch: values from the features' ranges and defaults, or ones if there are no features."""
    known = [f.plausible_value if f.required else f.fill_value for f in signature.features]
    values = known or [1.0] * len(signature.inputs)
    return {
        tensor.name: np.full((rows, *(max(n, 1) for n in tensor.shape)), value).astype(tensor.dtype)
        for tensor, value in zip(signature.inputs, values, strict=True)
    }
