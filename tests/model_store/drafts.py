from collections.abc import Callable
from datetime import UTC, datetime

from model_store import SCHEMAS, Draft, Generation, Manifest, ModelStore, Output


def draft(model: str = "ttft", onnx: bytes = b"model") -> Draft:
    manifest = Manifest(
        model=model,
        inputs=SCHEMAS["ttft"],
        outputs=(Output(f"{model}_ms", quantile=0.9),),
        model_type="xgboost",
        objective="quantile",
        trained_at=datetime.now(UTC),
        trainer_id="test",
    )
    return Draft(manifest, onnx)


def in_force(store: ModelStore) -> Generation:
    current = store.current()
    assert current
    return current


Damage = Callable[[bytes], bytes]


def truncated(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
