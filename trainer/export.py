"""From fitted models to an ONNX graph that takes the raw features by name and holds every derivation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from model_store import Output
from trainer.derivation import DERIVED, derivation_nodes
from trainer.exceptions import ExportError
from trainer.learners import Model
from trainer.wire import Matrix

_OPSET, _ML_OPSET, _IR = 18, 3, 10
_ALL = "all_features"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """`derive` names the target whose derived columns follow the raw ones; `floor` bounds the outputs from below.

    `exponential` raises e to what the models predict, where they were fitted to logarithms.
    """

    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    derive: str = ""
    floor: float | None = None
    exponential: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.inputs, *DERIVED.get(self.derive, ()))

    @property
    def rising(self) -> list[int]:
        """The positions of the outputs from the lowest quantile to the highest, the order they must not cross in."""
        quantiles = [output.quantile or 0.0 for output in self.outputs]
        return sorted(range(len(quantiles)), key=quantiles.__getitem__)


def export(models: Sequence[Model], spec: GraphSpec, metadata: dict[str, str]) -> bytes:
    """A graph of one model an output, as bytes. ExportError for a model that the conversion is known to get wrong."""
    nodes, constants = derivation_nodes(spec.derive)
    nodes.append(helper.make_node("Concat", list(spec.columns), [_ALL], axis=1))
    below = ""
    for position in spec.rising:
        name = spec.outputs[position].name
        part = models[position].graph(_ALL, f"{name}_fitted")
        constants += part.constants
        nodes += part.nodes + _finish(name, below, spec)
        below = name
    if spec.floor is not None:
        constants.append(helper.make_tensor("floor", TensorProto.FLOAT, [], [spec.floor]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in spec.inputs]
    outputs = [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["rows", 1]) for output in spec.outputs]
    graph = helper.make_graph(nodes, "latency", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="headroom")
    helper.set_model_props(model, metadata)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the graph is not valid: {error}") from error
    data: bytes = model.SerializeToString()
    return data


def expected(models: Sequence[Model], design: Matrix, spec: GraphSpec) -> Matrix:
    """What the graph must answer to the rows of a design matrix, [rows, outputs], computed without it."""
    fitted = np.column_stack([model.predict(design) for model in models])
    answers = np.exp(fitted) if spec.exponential else fitted
    answers = answers if spec.floor is None else np.maximum(answers, np.float32(spec.floor))
    answers[:, spec.rising] = np.maximum.accumulate(answers[:, spec.rising], axis=1)
    return np.asarray(answers, dtype=np.float32)


def _finish(name: str, below: str, spec: GraphSpec) -> list[NodeProto]:
    """From a model's own answer to the output: no logarithm, not under the floor, nor under the next lower quantile."""
    steps: list[tuple[str, list[str]]] = [("Exp", [])] if spec.exponential else []
    bounds = [bound for bound in ("floor" if spec.floor is not None else "", below) if bound]
    steps.append(("Max", bounds) if bounds else ("Identity", []))
    value, nodes = f"{name}_fitted", []
    for index, (kind, more) in enumerate(steps):
        result = name if index == len(steps) - 1 else f"{name}_{kind.lower()}"
        nodes.append(helper.make_node(kind, [value, *more], [result]))
        value = result
    return nodes
