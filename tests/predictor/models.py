"""Small ONNX models with exactly known answers, and a live predictor that serves them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_store import SCHEMAS, Draft, Feature, Manifest, Output
from predictor.app import create_app
from predictor.config import Config
from predictor.loading import LIMITS, Source, open_model
from predictor.model import Model
from tests.live import live


def linear_onnx(
    features: Sequence[Feature], output: str, factor: float, offset: float = 0.0, median: str = ""
) -> bytes:
    """Return a graph of factor * (sum of all inputs) + offset, where a missing input counts as 0.

    `median` is the name of a second output with half of that value.
    """
    inputs = [helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["rows", 1]) for f in features]
    constants = {"zero": 0.0, "factor": factor, "offset": offset}
    initializers = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], np.array([value], dtype=np.float32))
        for name, value in constants.items()
    ]
    nodes = [
        helper.make_node("Concat", [f.name for f in features], ["all"], axis=1),
        helper.make_node("IsNaN", ["all"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "all"], ["known"]),
        helper.make_node("ReduceSum", ["known", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], [output]),
    ]
    initializers.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    names = [output]
    if median:
        nodes += [helper.make_node("Div", [output, "two"], [median])]
        initializers.append(helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0]))
        names.append(median)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in names]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    onnx.checker.check_model(data)
    return data


def draft(
    name: str, factor: float, offset: float = 0.0, onnx_bytes: bytes | None = None, has_median: bool = False
) -> Draft:
    features = SCHEMAS[name]
    median = f"{name}_p50_ms" if has_median else ""
    medians = (Output(median, quantile=0.5),) if has_median else ()
    manifest = Manifest(
        model=name,
        inputs=features,
        outputs=(Output(f"{name}_ms", quantile=0.9), *medians),
        model_type="xgboost",
        objective="quantile",
        trained_at=datetime.now(UTC),
        trainer_id="test",
    )
    return Draft(manifest, onnx_bytes or linear_onnx(features, f"{name}_ms", factor, offset, median))


def pair(factor: float, offset: float = 0.0, has_median: bool = False) -> list[Draft]:
    return [draft(name, factor, offset, has_median=has_median) for name in ("ttft", "tpot")]


def open_draft(draft: Draft) -> Model:
    """Load a draft's model as a predictor does."""
    return open_model(Source(draft.manifest.model, 1, draft.onnx, draft.manifest), LIMITS)


def configuration(store: Path | str, interval_s: float = 0.02, try_models: bool = False, **settings: Any) -> Config:
    return Config(
        host="127.0.0.1",
        port=0,
        model_store=str(store),
        model_sync_interval_sec=interval_s,
        training_server_url="http://trainer",
        model_type="xgboost",
        max_body_bytes=1 << 20,
        max_rows=1000,
        try_models=try_models,
        **settings,
    )


@contextmanager
def running_predictor(store: Path | str, interval_s: float = 0.02, **settings: Any) -> Iterator[str]:
    """Run a predictor in a thread of this process; yield its URL."""
    with live(create_app(configuration(store, interval_s, **settings))) as url:
        yield url
