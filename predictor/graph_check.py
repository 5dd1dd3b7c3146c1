"""The safety check of untrusted graphs, before onnxruntime reads them.

Field names are those of ONNX's ModelProto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from predictor.protocol.onnx_pb2 import GraphProto, ModelProto, NodeProto, TensorProto

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def refusal(onnx: bytes) -> str | None:
    """Return the reason for which a model must not be loaded, or None if it may be.

    Refused are models that read files, and models with operators other than ONNX's own.
    """
    try:
        model = ModelProto.FromString(onnx)
    except DecodeError:
        return "not an ONNX model"
    if not model.graph.node:
        return "not an ONNX model: it has no graph"
    if model.functions:
        return "it defines functions of its own, which are not supported"
    foreign = sorted({opset.domain for opset in model.opset_import} - _DOMAINS)
    foreign += [f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in _DOMAINS]
    if foreign:
        return f"operators outside ai.onnx and ai.onnx.ml: {', '.join(foreign[:5])}"
    external = next((tensor.name for tensor in _tensors(model.graph) if _is_external(tensor)), None)
    if external is not None:
        return f"tensor {external!r} is stored in a file outside the model"
    return None


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield the graph and, recursively, every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for inner in _graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            yield from _constants(node)


def _constants(node: NodeProto) -> Iterable[TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == TensorProto.EXTERNAL
