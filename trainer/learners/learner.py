"""What every learner takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onnx import NodeProto, TensorProto

from trainer.settings import FitSettings
from trainer.wire import Matrix


@dataclass(frozen=True, slots=True)
class Training:
    """Rows x [rows, columns] (NaN is a missing value), y [rows] and weights [rows].

    `monotone` has 1 for each column along which the prediction may only rise, and 0 for the others.
    """

    x: Matrix
    y: Matrix
    weights: Matrix | None = None
    monotone: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class GraphPart:
    nodes: list[NodeProto]
    constants: list[TensorProto]


class Model(Protocol):
    """A fitted model of one output."""

    @property
    def trees(self) -> int:
        """How many trees it has; 0 for one that has none."""

    def predict(self, x: Matrix) -> Matrix:
        """The library's own answers, [rows]."""

    def graph(self, source: str, result: str) -> GraphPart:
        """Nodes that compute `result` [rows, 1] from `source` [rows, columns]. ExportError when that can't be done."""

    def importances(self, columns: Sequence[str]) -> dict[str, float]:
        """What each column counts for: the mean gain of a tree's splits, or a coefficient."""

    def intercept(self) -> float | None:
        """A linear model's constant; None for trees."""

    def dump(self) -> bytes:
        """The model as text for people: a JSON array of trees, LightGBM's own text, or JSON of coefficients."""


class Learner(Protocol):
    """A module of this package. The same rows give the same model."""

    def fit(self, training: Training, settings: FitSettings, previous: Sequence[Model]) -> Sequence[Model]: ...
