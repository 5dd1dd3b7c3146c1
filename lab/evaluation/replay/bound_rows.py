"""Models with input and output buffers that are bound once for each batch size.

onnxruntime takes over a microsecond to wrap each input of each call. The latency models have twenty inputs, so wrapping
takes three quarters of the time with eight rows. A replay asks for the same few batch sizes a million times.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from model_store import ROW_NAMES, TARGETS
from predictor.model import Model
from trainer.wire import Matrix


class BoundPair:
    """Both latency models, bound to one buffer of all raw features."""

    def __init__(self, models: Sequence[Model], rows: int) -> None:
        self._columns = np.zeros((len(ROW_NAMES), rows), dtype=np.float32)
        self._outputs = [np.zeros((len(model.signature.outputs), rows), dtype=np.float32) for model in models]
        self._runs = [
            (model.session, _bind(model, self._columns, outputs))
            for model, outputs in zip(models, self._outputs, strict=True)
        ]

    def predict(self, columns: Matrix) -> tuple[Matrix, Matrix]:
        """Predict from `columns` [ROW_FEATURES, rows].

        Return all outputs of the TTFT model and of the TPOT model in ms, at least 0, each [outputs, rows].
        """
        self._columns[:] = columns
        for session, binding in self._runs:
            session.run_with_iobinding(binding)
        ttft_ms, tpot_ms = self._outputs
        return np.maximum(ttft_ms, np.float32(0)), np.maximum(tpot_ms, np.float32(0))


class LoadedModels:
    """Both models of a generation. They are bound to a batch size at its first use."""

    def __init__(self, models: Mapping[str, Model], generation: int) -> None:
        self.models = models
        self.generation = generation
        self._bound: dict[int, BoundPair] = {}

    def predict(self, columns: Matrix) -> tuple[Matrix, Matrix]:
        rows = columns.shape[1]
        bound = self._bound.get(rows)
        if bound is None:
            bound = self._bound[rows] = BoundPair([self.models[name] for name in TARGETS], rows)
        return bound.predict(columns)


def _bind(model: Model, columns: Matrix, outputs: Matrix) -> object:
    rows = columns.shape[1]
    binding = model.session.io_binding()
    for feature in model.signature.features:
        address = columns[ROW_NAMES.index(feature.name)].ctypes.data
        binding.bind_input(feature.name, "cpu", 0, np.float32, (rows, 1), address)
    for output, buffer in zip(model.signature.outputs, outputs, strict=True):
        binding.bind_output(output.name, "cpu", 0, np.float32, (rows, 1), buffer.ctypes.data)
    return binding
