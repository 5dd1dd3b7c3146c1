"""The interfaces of a learner: its training data, its models and their graphs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node

from trainer.settings import FitSettings
from trainer.wire import Matrix


@dataclass(frozen=True, slots=True)
class Training:
    """Training data: x [rows, columns], where NaN is a missing value, y [rows] and weights [rows].

    `monotone` has 1 for each column with which the prediction may only rise, and 0 for the others. Each of
    `trend_terms` has the positions of the columns whose sum is a term of the latency's trend.
    """

    x: Matrix
    y: Matrix
    weights: Matrix | None = None
    monotone: Sequence[int] = ()
    trend_terms: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True)
class GraphPart:
    nodes: list[NodeProto]
    constants: list[TensorProto]


def graph_part(
    steps: Sequence[tuple[str, Sequence[str], str]],
    constants: Mapping[str, Any],
    prefix: str,
    outside: Collection[str],
) -> GraphPart:
    """Return nodes for steps of (operator, inputs, output). All names but those `outside` the part get the prefix."""

    def named(name: str) -> str:
        return name if name in outside else f"{prefix}_{name}"

    nodes = [make_node(kind, [named(one) for one in inputs], [named(output)]) for kind, inputs, output in steps]
    tensors = [numpy_helper.from_array(np.asarray(value), named(name)) for name, value in constants.items()]
    return GraphPart(nodes, tensors)


class Model(Protocol):
    """A fitted model of one output."""

    @property
    def trees(self) -> int:
        """The number of trees; 0 for a linear model."""

    def predict(self, x: Matrix) -> Matrix:
        """Return the library's own predictions, [rows]."""

    def graph(self, source: str, result: str) -> GraphPart:
        """Return nodes that compute `result` [rows, 1] from `source` [rows, columns]; raise ExportError on failure."""

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        """Return each column's importance: the gain of its splits, or its coefficient."""

    def intercept(self) -> float | None:
        """Return a linear model's constant, or None for trees."""

    def dump(self) -> bytes:
        """Return the model as readable text: a JSON array of trees, LightGBM's text, or JSON of coefficients."""


class Learner(Protocol):
    """A module that fits models. The same rows must give the same models."""

    def fit(self, training: Training, settings: FitSettings, previous: Sequence[Model]) -> Sequence[Model]: ...
