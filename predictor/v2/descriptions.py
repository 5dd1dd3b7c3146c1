"""The Open Inference Protocol's JSON documents on the server and its models: metadata, configuration, statistics."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from model_store.publication import MODEL
from predictor.engine import Engine, Served
from predictor.model import Model
from predictor.repository import EXPLICIT
from predictor.signature import Tensor
from predictor.statistics import Statistics
from predictor.versions import VersionPolicy

NAME = "headroom-predictor"
# The protocol's extensions that this server implements.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
PLATFORM = "onnxruntime_onnx"


def server_metadata() -> dict[str, Any]:
    return {"name": NAME, "version": version("headroom"), "extensions": list(EXTENSIONS)}


def is_ready(engine: Engine, mode: str) -> bool:
    """Return true if a model is served. In mode `explicit` return true always, because models load on request."""
    return bool(engine.models) or mode == EXPLICIT


def model_metadata(served: Served, model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "versions": [str(number) for number in sorted(served.versions)],
        "platform": PLATFORM,
        "inputs": [_tensor(tensor) for tensor in model.signature.inputs],
        "outputs": [_tensor(tensor) for tensor in model.signature.outputs],
    }


def model_config(served: Served, model: Model) -> dict[str, Any]:
    """Return a model's configuration with the field names of Triton's ModelConfig."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": _policy(served.policy),
        "max_batch_size": model.signature.max_rows,
        "input": [{**_configured_tensor(tensor), "optional": tensor.optional} for tensor in model.signature.inputs],
        "output": [_configured_tensor(tensor) for tensor in model.signature.outputs],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": 1}],
        "default_model_filename": MODEL,
    }


def statistics(engine: Engine, name: str | None = None, number: int | None = None) -> dict[str, Any]:
    """Return statistics of one version, of all versions of a model, or of all models; raise NotLoadedError."""
    if number is not None and name is not None:
        models = [engine.find(name, number)]
    elif name is not None:
        models = list(engine.served_model(name).versions.values())
    else:
        models = [model for served in engine.models.values() for model in served.versions.values()]
    return {"model_stats": [_statistics(model) for model in models]}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape]}


def _configured_tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": f"TYPE_{tensor.datatype}", "dims": list(tensor.shape)}


def _policy(policy: VersionPolicy) -> Mapping[str, Any]:
    if policy.specific:
        return {"specific": {"versions": sorted(policy.specific)}}
    return {"all": {}} if policy.latest is None else {"latest": {"num_versions": policy.latest}}


def _statistics(model: Model) -> dict[str, Any]:
    counted: Statistics = model.statistics
    answered = counted.succeeded

    def duration(count: int, ns: int) -> dict[str, int]:
        return {"count": count, "ns": ns}

    return {
        "name": model.name,
        "version": str(model.version),
        "last_inference": counted.last_inference_ms,
        "inference_count": counted.rows,
        "execution_count": counted.executions,
        "inference_stats": {
            "success": duration(answered, counted.total_ns),
            "fail": duration(counted.failed, counted.failed_ns),
            "queue": duration(answered, counted.queue_ns),
            "compute_input": duration(answered, counted.input_ns),
            "compute_infer": duration(answered, counted.infer_ns),
            "compute_output": duration(answered, counted.output_ns),
            "cache_hit": duration(0, 0),
            "cache_miss": duration(0, 0),
        },
        "batch_stats": [],
    }
