"""From a booster to an ONNX graph that takes the raw features by name and holds every derivation."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import xgboost as xgb
from onnx import TensorProto, helper
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from trainer.derivation import DERIVED, derivation_nodes
from trainer.exceptions import ExportError

_OPSET, _ML_OPSET, _IR = 18, 3, 10
_ALL, _TREES = "all_features", "trees"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """`derive` names the target whose derived columns follow the raw ones; `floor` bounds the output from below.

    `exponential` raises e to what the trees predict, for a booster that was fitted to logarithms.
    """

    inputs: tuple[str, ...]
    output: str
    derive: str = ""
    floor: float | None = None
    exponential: bool = False


def export(booster: xgb.Booster, spec: GraphSpec, metadata: dict[str, str]) -> bytes:
    """The graph as bytes. ExportError for a booster that the conversion is known to get wrong."""
    columns = (*spec.inputs, *DERIVED.get(spec.derive, ()))
    check_convertible(booster, len(columns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trees = convert_xgboost(
                _without_names(booster), initial_types=[("f", FloatTensorType([None, len(columns)]))], target_opset=15
            )
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise ExportError(f"onnxmltools can't convert this booster: {error}") from error
    if [node.op_type for node in trees.graph.node] != ["TreeEnsembleRegressor"]:
        raise ExportError(f"expected one tree ensemble, the conversion made {[n.op_type for n in trees.graph.node]}")
    return _graph(trees.graph.node[0], columns, spec, metadata)


def check_convertible(booster: xgb.Booster, columns: int) -> None:
    """Refuses what would convert without an error into something else."""
    learner = _learner(booster)
    if booster.num_features() != columns:
        raise ExportError(f"the model has {booster.num_features()} features, {columns} are named")
    alpha = json.loads(learner["objective"].get("quantile_loss_param", {}).get("quantile_alpha", "[]") or "[]")
    if isinstance(alpha, list) and len(alpha) > 1:
        raise ExportError(
            f"the model predicts {len(alpha)} quantiles at once, which converts wrongly: fit one a quantile"
        )
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise ExportError("the model has several outputs: fit one model an output")
    if learner["gradient_booster"]["name"] != "gbtree":
        raise ExportError(f"booster {learner['gradient_booster']['name']!r} is not supported: use gbtree")
    if "c" in (booster.feature_types or []):
        raise ExportError("the model has categorical features: encode them as numbers before training")


def quantile_of(booster: xgb.Booster) -> float | None:
    """The quantile that the booster was fitted to; None when it is a mean."""
    objective = _learner(booster)["objective"]
    if objective["name"] != "reg:quantileerror":
        return None
    alpha = json.loads(objective["quantile_loss_param"]["quantile_alpha"])
    return float(alpha[0] if isinstance(alpha, list) else alpha)


def _learner(booster: xgb.Booster) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(booster.save_config())["learner"]
    return learner


def _without_names(booster: xgb.Booster) -> xgb.Booster:
    """The conversion takes only names of its own making (f0, f1, ...)."""
    if booster.feature_names is None:
        return booster
    nameless = booster.copy()
    nameless.feature_names = None
    return nameless


def _graph(ensemble: Any, columns: Sequence[str], spec: GraphSpec, metadata: dict[str, str]) -> bytes:
    nodes, constants = derivation_nodes(spec.derive)
    del ensemble.input[:], ensemble.output[:]
    ensemble.input.append(_ALL)
    ensemble.output.append(_TREES)
    nodes += [helper.make_node("Concat", list(columns), [_ALL], axis=1), ensemble]
    value = _TREES
    if spec.exponential:
        nodes.append(helper.make_node("Exp", [value], ["exponential"]))
        value = "exponential"
    if spec.floor is not None:
        constants.append(helper.make_tensor("floor", TensorProto.FLOAT, [], [spec.floor]))
        nodes.append(helper.make_node("Max", [value, "floor"], ["floored"]))
        value = "floored"
    nodes.append(helper.make_node("Identity", [value], [spec.output]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in spec.inputs]
    outputs = [helper.make_tensor_value_info(spec.output, TensorProto.FLOAT, ["rows", 1])]
    graph = helper.make_graph(nodes, "latency", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="headroom")
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
