"""The safety check of untrusted graphs, before onnxruntime reads them.

Field names are those of ONNX's ModelProto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from model_store.protocol.onnx_pb2 import GraphProto, ModelProto, NodeProto, TensorProto

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
# The most nodes of a graph. The trainer's graphs have some 20: all trees of a model are one node.
MOST_NODES = 2_000
# Operators whose answers are as large as the shapes of their inputs say. Left out are operators with graphs inside
# (Loop, If, Scan), random ones, and those that make a tensor as large as a number says (ConstantOfShape, Expand, Tile).
_OPERATORS = """
Abs Acos Add And ArgMax ArgMin ArrayFeatureExtractor Asin Atan BatchNormalization Binarizer BitwiseAnd BitwiseNot
BitwiseOr BitwiseXor Cast CastLike CategoryMapper Ceil Celu Clip Concat Constant Cos Cosh CumSum Div Dropout Elu
Equal Erf Exp FeatureVectorizer Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual
HardSigmoid HardSwish Hardmax Identity Imputer IsInf IsNaN LabelEncoder LayerNormalization LeakyRelu Less
LessOrEqual LinearClassifier LinearRegressor Log LogSoftmax MatMul Max Mean Min Mish Mod Mul Neg Normalizer Not
OneHotEncoder Or PRelu Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round SVMClassifier SVMRegressor Scaler Selu Shape Sigmoid Sign
Sin Sinh Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu TopK Transpose
TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Unsqueeze Where Xor
"""
_KNOWN_OPERATORS = frozenset(_OPERATORS.split())


def refusal(onnx: bytes) -> str | None:
    """Return the reason for which a model must not be loaded, or None if it may be.

    Refused are models that read files, models of many nodes, and operators that a regressor does not need.
    """
    try:
        model = ModelProto.FromString(onnx)
    except DecodeError:
        return "not an ONNX model"
    if not model.graph.node:
        return "not an ONNX model: it has no graph"
    if model.functions:
        return "it defines functions of its own, which are not supported"
    return _nodes_refusal(model) or _tensors_refusal(model.graph)


def _nodes_refusal(model: ModelProto) -> str | None:
    nodes = model.graph.node
    if len(nodes) > MOST_NODES:
        return f"it has {len(nodes)} nodes, but the limit is {MOST_NODES}"
    foreign = sorted({opset.domain for opset in model.opset_import} - _DOMAINS)
    foreign += [f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _DOMAINS]
    if foreign:
        return f"operators outside ai.onnx and ai.onnx.ml: {', '.join(foreign[:5])}"
    unknown = sorted({node.op_type for node in nodes} - _KNOWN_OPERATORS)
    if unknown:
        return f"operators that a regressor does not need: {', '.join(unknown[:5])}"
    nested = next((node for node in nodes if _has_graph(node)), None)
    return f"a node of type {nested.op_type} has a graph inside" if nested else None


def _tensors_refusal(graph: GraphProto) -> str | None:
    if graph.sparse_initializer or any(_has_sparse(node) for node in graph.node):
        return "it has sparse tensors, which are not supported"
    for tensor in _tensors(graph):
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            return f"tensor {tensor.name!r} is stored in a file outside the model"
    return None


def _has_graph(node: NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _has_sparse(node: NodeProto) -> bool:
    return any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _constants(node)


def _constants(node: NodeProto) -> Iterable[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
