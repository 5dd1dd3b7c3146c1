"""What a server of the Open Inference Protocol says of itself and of its models, as the protocol's JSON documents."""

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
# Only what is served.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
PLATFORM = "onnxruntime_onnx"


def server_metadata() -> dict[str, Any]:
    return {"name": NAME, "version": version("headroom"), "extensions": list(EXTENSIONS)}


def is_ready(engine: Engine, mode: str) -> bool:
    """Whether requests can be answered; where models are loaded on demand, having none is no reason to wait."""
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
    """Triton's ModelConfig, by the names of its fields."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": _policy(served.policy),
        "max_batch_size": model.signature.max_rows,
        "input": [{**_configured(tensor), "optional": tensor.optional} for tensor in model.signature.inputs],
        "output": [_configured(tensor) for tensor in model.signature.outputs],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": 1}],
        "default_model_filename": MODEL,
    }


def statistics(engine: Engine, name: str | None = None, number: int | None = None) -> dict[str, Any]:
    """Of one version, of a model's versions, or of all; NotLoadedError when there is no such one."""
    if number is not None and name is not None:
        models = [engine.find(name, number)]
    elif name is not None:
        models = list(engine.served(name).versions.values())
    else:
        models = [model for served in engine.models.values() for model in served.versions.values()]
    return {"model_stats": [_statistics(model) for model in models]}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape]}


def _configured(tensor: Tensor) -> dict[str, Any]:
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
