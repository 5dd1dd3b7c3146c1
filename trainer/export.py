"""Export of fitted models to one ONNX graph, which takes the raw features by name and computes the derived ones."""

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
    """The inputs, outputs and transformations of a graph.

    `derive`: the target whose derived columns follow the raw ones. `floor`: the lower bound of the outputs.
    `exponential`: apply exp to the models' predictions, because they were fitted to logarithms.
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
    def ascending(self) -> list[int]:
        """The positions of the outputs from the lowest quantile to the highest. Predictions must keep this order."""
        quantiles = [output.quantile or 0.0 for output in self.outputs]
        return sorted(range(len(quantiles)), key=quantiles.__getitem__)


def export(models: Sequence[Model], spec: GraphSpec, metadata: dict[str, str]) -> bytes:
    """Return a graph with one model per output; raise ExportError for a model that would convert wrongly."""
    nodes, constants = derivation_nodes(spec.derive)
    nodes.append(helper.make_node("Concat", list(spec.columns), [_ALL], axis=1))
    below = ""
    for position in spec.ascending:
        name = spec.outputs[position].name
        part = models[position].graph(_ALL, f"{name}_fitted")
        # What models share is in the part of each of them.
        named, made = {one.name for one in constants}, {one.output[0] for one in nodes}
        constants += [one for one in part.constants if one.name not in named]
        nodes += [one for one in part.nodes if one.output[0] not in made]
        nodes += _output_nodes(name, below, spec)
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
    """Compute the answers [rows, outputs] that the graph must give, from the models themselves."""
    fitted = np.column_stack([model.predict(design) for model in models])
    answers = np.exp(fitted) if spec.exponential else fitted
    answers = answers if spec.floor is None else np.maximum(answers, np.float32(spec.floor))
    answers[:, spec.ascending] = np.maximum.accumulate(answers[:, spec.ascending], axis=1)
    return np.asarray(answers, dtype=np.float32)


def _output_nodes(name: str, below: str, spec: GraphSpec) -> list[NodeProto]:
    """Return nodes that turn a model's answer into its output.

    They apply exp if needed, then bound the value from below by the floor and by the next lower quantile.
    """
    steps: list[tuple[str, list[str]]] = [("Exp", [])] if spec.exponential else []
    bounds = [bound for bound in ("floor" if spec.floor is not None else "", below) if bound]
    steps.append(("Max", bounds) if bounds else ("Identity", []))
    value, nodes = f"{name}_fitted", []
    for index, (kind, more) in enumerate(steps):
        result = name if index == len(steps) - 1 else f"{name}_{kind.lower()}"
        nodes.append(helper.make_node(kind, [value, *more], [result]))
        value = result
    return nodes
