"""Serving one generation of models: what is loaded is complete and probed, and is swapped by one reference."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model_store import Generation, Manifest, ModelStore, StoredModel
from predictor.exceptions import ModelError, NotLoadedError

logger = logging.getLogger("headroom.predictor")

Matrix = NDArray[np.float32]
MAX_MODEL_BYTES = 64 << 20
_PROBE_ROWS = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to answer."""

    manifest: Manifest
    session: ort.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def predict(self, rows: Matrix) -> Matrix:
        """From [rows, inputs] in the manifest's order to [rows, outputs]."""
        feed = {name: rows[:, index : index + 1] for index, name in enumerate(self.inputs)}
        results = self.session.run(self.outputs, feed)
        return np.concatenate(results, axis=1) if len(results) > 1 else results[0]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A generation's models, by name."""

    generation: Generation
    models: dict[str, Model]
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Engine:
    """Holds what is being served; None until something is."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None

    def get(self, name: str) -> tuple[Model, Loaded]:
        """The model and the generation that it belongs to; NotLoadedError when it isn't there."""
        loaded = self.loaded
        if loaded is None:
            raise NotLoadedError("no model is loaded yet: nothing has been published in the model store")
        if name not in loaded.models:
            raise NotLoadedError(f"no model {name!r}; loaded: {', '.join(sorted(loaded.models))}")
        return loaded.models[name], loaded


def load(store: ModelStore, generation: Generation, previous: Loaded | None) -> Loaded:
    """Reads, verifies and probes a generation's models; those that didn't change are taken over from `previous`.

    StoreError or ModelError when one can't be served, in which case none of them is.
    """
    models = {}
    for name, ref in generation.models.items():
        known = previous.generation.models.get(name) if previous else None
        if previous and known == ref and name in previous.models:
            models[name] = previous.models[name]
        else:
            models[name] = open_model(store.read(generation, name))
    return Loaded(generation, models)


def open_model(stored: StoredModel) -> Model:
    """A session for a stored model, warmed up with the usual batch sizes. A model file is untrusted input."""
    manifest = stored.manifest
    where = f"{manifest.model}/{manifest.version}"
    if len(stored.onnx) > MAX_MODEL_BYTES:
        raise ModelError(f"{where}: {len(stored.onnx)} bytes, the limit is {MAX_MODEL_BYTES}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    try:
        session = ort.InferenceSession(stored.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        raise ModelError(f"{where}: {error}") from error
    model = Model(manifest, session, _check_inputs(session, manifest, where), _check_outputs(session, manifest, where))
    for rows in _PROBE_ROWS:
        _probe(model, rows, where)
    return model


def _check_inputs(session: ort.InferenceSession, manifest: Manifest, where: str) -> tuple[str, ...]:
    found = {value.name: (value.type, len(value.shape)) for value in session.get_inputs()}
    names = tuple(feature.name for feature in manifest.inputs)
    if found != dict.fromkeys(names, ("tensor(float)", 2)):
        raise ModelError(f"{where}: the graph's inputs {sorted(found)} contradict the manifest's {sorted(names)}")
    return names


def _check_outputs(session: ort.InferenceSession, manifest: Manifest, where: str) -> tuple[str, ...]:
    found = {value.name for value in session.get_outputs()}
    names = tuple(output.name for output in manifest.outputs)
    if not names or not set(names) <= found:
        raise ModelError(f"{where}: the graph's outputs {sorted(found)} lack the manifest's {sorted(names)}")
    return names


def _probe(model: Model, rows: int, where: str) -> None:
    """The model must answer a plausible batch with finite numbers of the right shape."""
    middle = [
        feature.fill_value if not feature.required else (feature.minimum + (feature.maximum or feature.minimum)) / 2
        for feature in model.manifest.inputs
    ]
    try:
        answer = model.predict(np.tile(np.array(middle, dtype=np.float32), (rows, 1)))
    except Exception as error:  # as above
        raise ModelError(f"{where}: does not answer a batch of {rows} rows: {error}") from error
    if answer.shape != (rows, len(model.outputs)) or not np.isfinite(answer).all():
        raise ModelError(f"{where}: answers a batch of {rows} rows with shape {answer.shape} or with no finite numbers")
