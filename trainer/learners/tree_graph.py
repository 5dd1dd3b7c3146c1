"""Conversion of a booster to an ONNX tree ensemble that can be placed in another graph."""

import warnings
from collections.abc import Callable
from typing import Any

from onnxmltools.convert.common.data_types import FloatTensorType

from trainer.exceptions import ExportError
from trainer.learners.learner import GraphPart

# The opset that onnxmltools converts to. Later opsets have the same tree ensembles.
_OPSET = 15


def tree_ensemble(convert: Callable[..., Any], booster: Any, columns: int, source: str, result: str) -> GraphPart:
    """Convert a booster with one of onnxmltools' functions; the ensemble reads `source` and writes `result`.

    Raise ExportError when the conversion fails or yields anything but one tree ensemble.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            types = [("f", FloatTensorType([None, columns]))]
            graph = convert(booster, initial_types=types, target_opset=_OPSET).graph
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise ExportError(f"onnxmltools can't convert this booster: {error}") from error
    nodes = [node for node in graph.node if node.op_type != "Identity"]
    if [node.op_type for node in nodes] != ["TreeEnsembleRegressor"]:
        raise ExportError(f"expected one tree ensemble, but the conversion made {[node.op_type for node in nodes]}")
    ensemble = nodes[0]
    ensemble.name = result
    del ensemble.input[:], ensemble.output[:]
    ensemble.input.append(source)
    ensemble.output.append(result)
    return GraphPart([ensemble], [])
