"""Models of several shapes and datatypes for plain Triton folders, without a manifest."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def two_by_two(factor: float = 1.0) -> bytes:
    """Return a graph of total = factor * (left + right) and count = right.

    Inputs: left [rows, 2] float, right [rows] int64. Outputs: total [rows, 2] float, count [rows, 1] double.
    """
    inputs = [
        helper.make_tensor_value_info("left", TensorProto.FLOAT, ["rows", 2]),
        helper.make_tensor_value_info("right", TensorProto.INT64, ["rows"]),
    ]
    outputs = [
        helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows", 2]),
        helper.make_tensor_value_info("count", TensorProto.DOUBLE, ["rows", 1]),
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["right", "axis"], ["column"]),
        helper.make_node("Cast", ["column"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["left", "as_float"], ["sum"]),
        helper.make_node("Mul", ["sum", "factor"], ["total"]),
        helper.make_node("Cast", ["column"], ["count"], to=TensorProto.DOUBLE),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("factor", TensorProto.FLOAT, [1], np.array([factor], dtype=np.float32)),
    ]
    return _model(helper.make_graph(nodes, "two", inputs, outputs, constants))


def doubling(factor: float = 2.0, domain: str = "", operator: str = "Mul") -> bytes:
    """Return a graph from x [rows, 1] to y = factor * x."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])]
    constants = [helper.make_tensor("factor", TensorProto.FLOAT, [1], np.array([factor], dtype=np.float32))]
    nodes = [helper.make_node(operator, ["x", "factor"], ["y"], domain=domain)]
    return _model(helper.make_graph(nodes, "doubling", inputs, outputs, constants), domain)


def external() -> bytes:
    """Return a graph whose factor is stored in a file outside the model's folder."""
    model = onnx.load_from_string(doubling())
    factor = model.graph.initializer[0]
    factor.ClearField("raw_data")
    factor.ClearField("float_data")
    factor.data_location = TensorProto.EXTERNAL
    factor.external_data.add(key="location", value="../../../etc/passwd")
    data: bytes = model.SerializeToString()
    return data


def put(root: Path, name: str, version: int, data: bytes, config: str | None = None) -> None:
    """Write a version atomically, by a rename."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    partial = folder / f".{version}"
    partial.mkdir()
    (partial / "model.onnx").write_bytes(data)
    partial.rename(folder / str(version))


def _model(graph: onnx.GraphProto, domain: str = "") -> bytes:
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data
