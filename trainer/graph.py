"""Runs exported ONNX graphs, as a predictor does."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from model_store.graph_check import refusal
from trainer.exceptions import GraphError
from trainer.wire import Matrix


class Graph:
    """An onnxruntime session of a graph whose inputs are named columns. The constructor raises GraphError."""

    def __init__(self, onnx_bytes: bytes) -> None:
        reason = refusal(onnx_bytes)
        if reason:
            raise GraphError(reason)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class, derived from Exception, for each status code
            raise GraphError(str(error)) from error

    def outputs(self, names: Sequence[str], rows: Matrix) -> Matrix:
        """Return all outputs [rows, outputs] for `rows` [rows, names]. Columns that are not inputs are ignored."""
        wanted = {value.name for value in self._session.get_inputs()}
        feed = {name: rows[:, i : i + 1] for i, name in enumerate(names) if name in wanted}
        return np.concatenate(self._session.run(None, feed), axis=1, dtype=np.float32)

    def predict(self, names: Sequence[str], rows: Matrix) -> Matrix:
        """Return the first output, [rows]."""
        return self.outputs(names, rows)[:, 0]
