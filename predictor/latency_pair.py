"""The TTFT and TPOT models as one predictor, which takes rows of all features."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from model_store import ROW_NAMES, TARGETS
from predictor.answering import Run, count_failure
from predictor.engine import Engine, Served
from predictor.model import Array, Model


@dataclass(frozen=True, slots=True)
class _Target:
    """A model and the positions of its features in a full row. Features that no row has get their defaults.

    `median` is the position of the 0.5 quantile among the outputs, or None if the model does not predict it.
    """

    model: Model
    positions: NDArray[np.intp]
    defaults: tuple[tuple[int, float], ...]
    median: int | None

    def predict(self, rows: Array) -> tuple[Array, Array | None]:
        """Predict from `rows` [all features, rows]; return the first output and the median, each [rows] in ms."""
        columns = rows[self.positions]
        for position, value in self.defaults:
            columns[position] = value
        outputs = self.model.predict(columns)
        return outputs[0].reshape(-1), None if self.median is None else outputs[self.median].reshape(-1)


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """Both models. `about` is part of every prediction: model type, objective, quantile, time of loading."""

    targets: tuple[_Target, ...]
    generation: int
    about: tuple[str, str, float | None, datetime]

    def predict(self, columns: Array) -> list[Array]:
        """Predict from `columns` [all features, rows]; return TTFT and TPOT, each [rows] in ms and at least 0.

        If both models predict a median, the medians of TTFT and TPOT follow.
        """
        return _join_outputs([target.predict(columns) for target in self.targets])

    def run(self, columns: Array, began_ns: int) -> tuple[list[Array], list[Run]]:
        """Predict as `predict` does, and return the models' runs too.

        The time from `began_ns` until the first model runs counts as the first run's input time.
        """
        results, runs = [], []
        for target in self.targets:
            read_ns = time.perf_counter_ns()
            results.append(target.predict(columns))
            ran_ns = time.perf_counter_ns()
            runs.append(Run(target.model, columns.shape[1], read_ns - began_ns, ran_ns - read_ns, 0))
            began_ns = ran_ns
        return _join_outputs(results), runs


class LatencyPair:
    """The pair that the engine serves; it is rebuilt whenever the engine's models change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._models: Mapping[str, Served] | None = None
        self._loaded: LoadedPair | None = None

    def loaded(self) -> LoadedPair | None:
        """Return the pair, or None unless both models are served and take features."""
        models = self._engine.models
        if models is not self._models:
            self._loaded = _pair(models)
            self._models = models
        return self._loaded

    def count_failure(self) -> None:
        for name in TARGETS:
            count_failure(self._engine, name, time.perf_counter_ns())


def _pair(models: Mapping[str, Served]) -> LoadedPair | None:
    served = [models[name] for name in TARGETS if name in models and models[name].default.signature.features]
    if len(served) < len(TARGETS):
        return None
    generations = [one.generation.generation for one in served if one.generation]
    targets = tuple(_target(one.default) for one in served)
    loaded_at = max(one.loaded_at for one in served)
    return LoadedPair(targets, max(generations, default=0), (*kind(served[0].default), loaded_at))


def _join_outputs(results: list[tuple[Array, Array | None]]) -> list[Array]:
    medians = [median for _, median in results if median is not None]
    if len(medians) < len(results):
        medians = []
    return [np.maximum(values, 0.0) for values in (*(first for first, _ in results), *medians)]


def kind(model: Model) -> tuple[str, str, float | None]:
    """Return a model's type, objective and quantile from its manifest; a graph without one does not tell them."""
    manifest = model.manifest
    if manifest is None:
        return "onnx", "unknown", None
    return manifest.model_type, manifest.objective, manifest.outputs[0].quantile


def _target(model: Model) -> _Target:
    names = [feature.name for feature in model.signature.features]
    positions = np.array([ROW_NAMES.index(name) if name in ROW_NAMES else 0 for name in names])
    unknown = [(i, f.fill_value) for i, f in enumerate(model.signature.features) if f.name not in ROW_NAMES]
    quantiles = [output.quantile for output in model.manifest.outputs] if model.manifest else []
    return _Target(model, positions, tuple(unknown), quantiles.index(0.5) if 0.5 in quantiles else None)
