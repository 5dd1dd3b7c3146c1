"""The `config.pbtxt` files with which Triton can serve a store's models."""

from model_store.manifest import Manifest

_MAX_BATCH_SIZE = 16384


def config_pbtxt(manifest: Manifest) -> str:
    """Return Triton's model configuration: each input and output is a float32 column, rows are the batch dimension.

    Field names come from Triton's ModelConfig message (model_config.proto).
    """
    inputs = ",\n".join(_tensor(feature.name) for feature in manifest.inputs)
    outputs = ",\n".join(_tensor(output.name) for output in manifest.outputs)
    return (
        f'name: "{manifest.model}"\n'
        'platform: "onnxruntime_onnx"\n'
        f"max_batch_size: {_MAX_BATCH_SIZE}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{outputs}\n]\n"
        "version_policy { latest { num_versions: 1 } }\n"
        "instance_group [ { kind: KIND_CPU, count: 1 } ]\n"
    )


def _tensor(name: str) -> str:
    return f'  {{ name: "{name}", data_type: TYPE_FP32, dims: [ 1 ] }}'
