"""Taking the tree ensemble out of a converted model, to put it into a graph of our own."""

from onnx import ModelProto

from trainer.exceptions import ExportError
from trainer.learners.learner import GraphPart

# What the conversions are asked for; tree ensembles have not changed since.
OPSET = 15


def tree_ensemble(converted: ModelProto, source: str, result: str) -> GraphPart:
    """The one ensemble of a converted model, reading `source` and answering `result`; ExportError for anything else."""
    kinds = [node.op_type for node in converted.graph.node if node.op_type != "Identity"]
    if kinds != ["TreeEnsembleRegressor"]:
        raise ExportError(f"expected one tree ensemble, the conversion made {kinds}")
    ensemble = next(node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor")
    ensemble.name = result
    del ensemble.input[:], ensemble.output[:]
    ensemble.input.append(source)
    ensemble.output.append(result)
    return GraphPart([ensemble], [])
