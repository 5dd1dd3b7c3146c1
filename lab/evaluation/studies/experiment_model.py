"""Models for experiments with other features and objectives than the shipped ones; without gate, holdout or schema.

Rows may have any columns. Functions derive more columns from them, the same in training and in prediction. The
trainer's learners fit the models. Both targets' models become one ONNX graph over one matrix, which is the fastest to
run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper

from epp.prediction.features import FeatureColumns
from epp.scheduling.snapshot import Predictions
from lab.evaluation.replay.virtual_time import Delayed
from model_store import ROW_NAMES, TARGETS
from trainer.derivation import RISING, design_columns
from trainer.learners import Model, Training, fit
from trainer.settings import FitSettings
from trainer.window import prefix_buckets
from trainer.wire import Matrix

Columns = Mapping[str, Matrix]
Derivation = Callable[[Columns], Matrix]

_OPSET, _ML_OPSET, _IR = 18, 3, 10

# The columns that the shipped graphs derive.
DERIVED: dict[str, Derivation] = {
    "effective_input_tokens": lambda c: (1 - c["prefix_cache_score"]) * c["input_token_length"],
    "prefill_score_bucket": lambda c: prefix_buckets(c["prefix_cache_score"]),
    "expected_prefill_ms": lambda c: (
        (c["prefill_tokens_in_flight"] + c["effective_input_tokens"]) * c["recent_prefill_ms_per_token"]
    ),
}


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """The columns of a target's models, the monotone ones among them (`rising`), and the fit's settings.

    With `in_logarithms`, models are fitted to the logarithm; a mean is then the geometric mean. With `mean_first`, all
    but `fit.further_trees` of the trees are fitted to a mean, and the remaining trees to each quantile on top of it.
    The slope of an upper quantile's loss is the same for all rows below it, so boosting from scratch separates these
    late.

    `calibrating_share` of the rows is set aside for calibration. Each output is shifted until its quantile's share of
    these rows is below it (split conformal prediction with constant width, Romano et al. 2019).
    """

    columns: tuple[str, ...]
    rising: tuple[str, ...] = ()
    fit: FitSettings = field(default_factory=FitSettings)
    in_logarithms: bool = True
    mean_first: bool = False
    calibrating_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A target's models, and the shift of each output."""

    models: Sequence[Model]
    shifts: Sequence[float]

    def predict(self, x: Matrix) -> Matrix:
        """Return [outputs, rows] as fitted. They may be logarithms, and quantiles may cross."""
        return np.stack([m.predict(x) + np.float32(s) for m, s in zip(self.models, self.shifts, strict=True)])


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """An experiment. `names` are the columns of added rows. Each of `derived` may use the derived columns before it.

    Models are fitted to the newest `rows` rows of each target. A row that is `half_life_rows` older weighs half as
    much.
    """

    ttft: TargetPlan = TargetPlan(design_columns("ttft"), RISING["ttft"])
    tpot: TargetPlan = TargetPlan(design_columns("tpot"))
    names: tuple[str, ...] = ROW_NAMES
    derived: Mapping[str, Derivation] = field(default_factory=lambda: DERIVED)
    rows: int = 20_000
    half_life_rows: float = np.inf
    interval_s: float = 5.0
    delay_s: float = 1.5
    min_samples: int = 100
    min_new_rows: int = 100

    def __post_init__(self) -> None:
        known = {*self.names, *self.derived}
        for target in (self.ttft, self.tpot):
            unknown = {*target.columns, *target.rising} - known
            if unknown:
                raise ValueError(f"neither a column of the rows nor a derived one: {', '.join(sorted(unknown))}")

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.names, *self.derived)

    def target(self, name: str) -> TargetPlan:
        return self.ttft if name == "ttft" else self.tpot


class ExperimentModels(msgspec.Struct, frozen=True):
    """The start of another run of the same plan: the graph, and float32 rows [rows, names and a latency]."""

    onnx: bytes
    rows: dict[str, bytes]
    generation: int


class ExperimentModel:
    """Learns and predicts by a plan, with the interface of VirtualTrainer."""

    def __init__(self, plan: ExperimentPlan, models: ExperimentModels | None = None) -> None:
        self._plan = plan
        width = len(plan.names) + 1
        self._new: list[tuple[FeatureColumns, float, float]] = []
        self._rows = {name: np.empty((0, width), dtype=np.float32) for name in TARGETS}
        self._rows_since_pass = 0
        self._due_s = -np.inf
        self._onnx = b""
        self._generation = 0
        self._served: Delayed[_Graph | None] = Delayed(None)
        if models:
            self._rows = {n: np.frombuffer(b, dtype=np.float32).reshape(-1, width) for n, b in models.rows.items()}
            self._generation = models.generation
            self._serve(models.onnx, -np.inf)

    def add(self, features: FeatureColumns, ttft_ms: float = 0.0, tpot_ms: float = 0.0) -> None:
        """Add a row [names, 1] and its observed latencies; 0 means that the row doesn't have this latency.

        The caller must not change `features` afterwards.
        """
        self._new.append((features, ttft_ms, tpot_ms))

    def refit_if_due(self, now_s: float) -> bool:
        """Fit models if a fit is due, and return whether they were fitted. They serve `delay_s` later."""
        if now_s < self._due_s or self._rows_since_pass + len(self._new) < self._plan.min_new_rows:
            return False
        self._take_in()
        self._rows_since_pass = 0
        self._due_s = now_s + self._plan.interval_s
        if min(map(len, self._rows.values())) < self._plan.min_samples:
            return False
        self._generation += 1
        self._serve(_export({name: self._fit(name) for name in TARGETS}, self._plan), now_s + self._plan.delay_s)
        return True

    def predict(self, columns: FeatureColumns, now_s: float) -> Predictions | None:
        """Predict from `columns` [names, candidates]. Return None without models, or if an answer isn't finite."""
        answers = self.predict_all(columns, now_s)
        if answers is None or not all(np.isfinite(answer[0]).all() for answer in answers):
            return None
        return Predictions(answers[0][0], answers[1][0], self._generation, "experiment")

    def predict_all(self, columns: FeatureColumns, now_s: float) -> tuple[Matrix, Matrix] | None:
        """Return all outputs of both models, each [outputs, candidates], in the order of each target's quantiles."""
        graph = self._served.at(now_s)
        return None if graph is None else graph.predict(columns)

    def models(self) -> ExperimentModels:
        """Return the newest graph, even if it doesn't serve yet, and the newest rows."""
        self._take_in()
        return ExperimentModels(self._onnx, {n: rows.tobytes() for n, rows in self._rows.items()}, self._generation)

    def _take_in(self) -> None:
        if not self._new:
            return
        features = np.concatenate([row[0] for row in self._new], axis=1, dtype=np.float32).T
        for index, name in enumerate(TARGETS, start=1):
            latency_ms = np.array([row[index] for row in self._new], dtype=np.float32)
            rows = np.column_stack((features, latency_ms))[latency_ms > 0]
            self._rows[name] = np.concatenate((self._rows[name], rows))[-self._plan.rows :]
        self._rows_since_pass += len(self._new)
        self._new = []

    def _fit(self, name: str) -> Fitted:
        plan, rows = self._plan, self._rows[name]
        ages = np.arange(len(rows))[::-1]
        weights = np.exp2(-ages / plan.half_life_rows).astype(np.float32) if np.isfinite(plan.half_life_rows) else None
        return fit_target(plan.target(name), target_matrix(plan, name, rows[:, :-1]), rows[:, -1], weights)

    def _serve(self, onnx_bytes: bytes, from_s: float) -> None:
        self._onnx = onnx_bytes
        if onnx_bytes:
            self._served.replace(_Graph(onnx_bytes, self._plan), from_s)


def target_matrix(plan: ExperimentPlan, name: str, rows: Matrix) -> Matrix:
    """Return the input [rows, columns] of a target's models, made of `rows` [rows, plan.names]."""
    matrix, views = _matrix(plan, len(rows))
    _fill(matrix, views, plan, rows)
    return matrix[:, _positions(plan, plan.target(name))]


def fit_target(target: TargetPlan, x: Matrix, y_ms: Matrix, weights: Matrix | None = None) -> Fitted:
    """Fit a target's models to inputs `x` [rows, target.columns] and latencies `y_ms` [rows]."""
    y = np.log(y_ms) if target.in_logarithms else y_ms
    aside = np.zeros(len(y), dtype=np.bool_)
    if target.calibrating_share:
        aside[:: round(1 / target.calibrating_share)] = True
    used = ~aside
    monotone = tuple(int(column in target.rising) for column in target.columns)
    training = Training(x[used], y[used], None if weights is None else weights[used], monotone)
    first: Sequence[Model] = ()
    if target.mean_first:
        mean = msgspec.structs.replace(target.fit, quantiles=(), trees=target.fit.trees - target.fit.further_trees)
        first = fit(training, mean) * len(target.fit.targets)
    models = fit(training, target.fit, first)
    shifts = [0.0] * len(models)
    if target.calibrating_share:
        residuals = [y[aside] - model.predict(x[aside]) for model in models]
        pairs = zip(residuals, target.fit.targets, strict=True)
        shifts = [float(r.mean() if q is None else np.quantile(r, q)) for r, q in pairs]
    return Fitted(models, shifts)


class _Graph:
    """A session whose buffers are bound to a batch size at its first use."""

    def __init__(self, onnx_bytes: bytes, plan: ExperimentPlan) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        self._plan = plan
        self._bound: dict[int, tuple[Any, Matrix, Columns, tuple[Matrix, Matrix]]] = {}

    def predict(self, columns: FeatureColumns) -> tuple[Matrix, Matrix]:
        binding, matrix, views, (ttft_ms, tpot_ms) = self._bound_to(columns.shape[1])
        _fill(matrix, views, self._plan, columns.T)
        self._session.run_with_iobinding(binding)
        return ttft_ms.T.copy(), tpot_ms.T.copy()

    def _bound_to(self, rows: int) -> tuple[Any, Matrix, Columns, tuple[Matrix, Matrix]]:
        if rows not in self._bound:
            matrix, views = _matrix(self._plan, rows)
            binding = self._session.io_binding()
            binding.bind_input("columns", "cpu", 0, np.float32, matrix.shape, matrix.ctypes.data)
            outputs = []
            for name in TARGETS:
                answer = np.zeros((rows, len(self._plan.target(name).fit.targets)), dtype=np.float32)
                binding.bind_output(name, "cpu", 0, np.float32, answer.shape, answer.ctypes.data)
                outputs.append(answer)
            self._bound[rows] = (binding, matrix, views, (outputs[0], outputs[1]))
        return self._bound[rows]


def _matrix(plan: ExperimentPlan, rows: int) -> tuple[Matrix, Columns]:
    """Return an empty matrix [rows, columns], and a view of each of its columns by name."""
    matrix = np.zeros((rows, len(plan.columns)), dtype=np.float32)
    return matrix, {name: matrix[:, index] for index, name in enumerate(plan.columns)}


def _fill(matrix: Matrix, views: Columns, plan: ExperimentPlan, rows: Matrix) -> None:
    matrix[:, : len(plan.names)] = rows
    for name, derive in plan.derived.items():
        views[name][:] = derive(views)


def _positions(plan: ExperimentPlan, target: TargetPlan) -> list[int]:
    return [plan.columns.index(name) for name in target.columns]


def _export(models: Mapping[str, Fitted], plan: ExperimentPlan) -> bytes:
    """Return one ONNX graph from `columns` [rows, columns] to each target's outputs [rows, outputs].

    Outputs are at least 0, and quantiles don't cross.
    """
    nodes: list[NodeProto] = []
    constants = [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])]
    for name, fitted in models.items():
        target, source = plan.target(name), f"{name}_columns"
        positions = _positions(plan, target)
        constants.append(helper.make_tensor(f"{source}_at", TensorProto.INT64, [len(positions)], positions))
        nodes.append(helper.make_node("Gather", ["columns", f"{source}_at"], [source], axis=1))
        below = "zero"
        for index in sorted(range(len(fitted.models)), key=lambda i: target.fit.targets[i] or 0.0):
            part = fitted.models[index].graph(source, f"{name}_{index}_fitted")
            constants += part.constants
            constants.append(helper.make_tensor(f"{name}_{index}_shift", TensorProto.FLOAT, [], [fitted.shifts[index]]))
            nodes += part.nodes
            value = f"{name}_{index}_shifted"
            nodes.append(helper.make_node("Add", [f"{name}_{index}_fitted", f"{name}_{index}_shift"], [value]))
            if target.in_logarithms:
                nodes.append(helper.make_node("Exp", [value], [f"{name}_{index}_exp"]))
                value = f"{name}_{index}_exp"
            nodes.append(helper.make_node("Max", [value, below], [f"{name}_{index}"]))
            below = f"{name}_{index}"
        nodes.append(helper.make_node("Concat", [f"{name}_{i}" for i in range(len(fitted.models))], [name], axis=1))
    inputs = [helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["rows", len(plan.columns)])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", len(f.models)]) for n, f in models.items()]
    graph = helper.make_graph(nodes, "experiment", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
