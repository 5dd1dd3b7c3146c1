"""TTFT models that harm whoever loads or runs them. All have the right inputs and output."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from model_store import SCHEMAS


def huge_constant() -> bytes:
    """Return a graph that makes a tensor of 256 GiB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["largest"]),
        helper.make_node("Add", ["sum", "largest"], ["ttft_ms"]),
    ]
    return _model(nodes, [helper.make_tensor("huge", TensorProto.INT64, [1], [1 << 36])])


def doubled_columns(times: int = 40) -> bytes:
    """Return a graph of harmless operators whose columns double `times` times."""
    nodes = [helper.make_node("Concat", [_name(index)] * 2, [_name(index + 1)], axis=1) for index in range(times)]
    nodes.append(helper.make_node("ReduceMax", [_name(times), "axes"], ["ttft_ms"], keepdims=1))
    return _model(nodes, [])


def deep(nodes: int = 20_000) -> bytes:
    """Return a graph with a long chain of additions."""
    chain = [helper.make_node("Add", [_name(index), "one"], [_name(index + 1)]) for index in range(nodes)]
    return _model([*chain, helper.make_node("Identity", [_name(nodes)], ["ttft_ms"])], [])


def endless_loop() -> bytes:
    """Return a graph with a Loop that never ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["going_on"]), helper.make_node("Add", ["total", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["rows", 1]),
        ],
    )
    loop = helper.make_node("Loop", ["", "true", "sum"], ["ttft_ms"], body=body)
    return _model([loop], [helper.make_tensor("true", TensorProto.BOOL, [], [True])])


def busy(products: int = 1_500) -> bytes:
    """Return a graph that multiplies large matrices for minutes."""
    size = 600
    nodes = [
        helper.make_node("MatMul", ["sum", "row"], ["product_0"]),
        *(helper.make_node("MatMul", [f"product_{n}", "square"], [f"product_{n + 1}"]) for n in range(products)),
        helper.make_node("ReduceMax", [f"product_{products}", "axes"], ["ttft_ms"], keepdims=1),
    ]
    square = np.full((size, size), 1 / size, dtype=np.float32).tobytes()
    constants = [
        helper.make_tensor("row", TensorProto.FLOAT, [1, size], np.ones(size, dtype=np.float32).tobytes(), raw=True),
        helper.make_tensor("square", TensorProto.FLOAT, [size, size], square, raw=True),
    ]
    return _model(nodes, constants)


def _name(index: int) -> str:
    return f"sum_{index}" if index else "sum"


def _model(nodes: Sequence[NodeProto], constants: Sequence[TensorProto]) -> bytes:
    features = SCHEMAS["ttft"]
    inputs = [helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["rows", 1]) for f in features]
    head = [
        helper.make_node("Concat", [f.name for f in features if f.required], ["all"], axis=1),
        helper.make_node("ReduceSum", ["all", "axes"], ["sum"], keepdims=1),
    ]
    shared = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    output = helper.make_tensor_value_info("ttft_ms", TensorProto.FLOAT, ["rows", 1])
    graph: GraphProto = helper.make_graph([*head, *nodes], "bomb", inputs, [output], [*shared, *constants])
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return data
