"""Loading of plain Triton model folders: `<model>/<version>/model.onnx` and an optional config.pbtxt, by any writer.

Such a folder need not be written atomically. A file that is still being copied is an invalid graph, so it is refused.
Each poll tries it again until it is whole.
"""

import os
from collections.abc import Container, Hashable
from pathlib import Path

from google.protobuf import text_format

from model_store.publication import CONFIG, MANIFEST, MODEL
from predictor.engine import Served
from predictor.exceptions import ModelError
from predictor.loading import Source
from predictor.opener import Opener
from predictor.protocol.inference_pb2 import ModelConfig
from predictor.versions import LATEST, VersionPolicies, VersionPolicy
from serving.watched_file import file_stamp

_PLATFORMS = {"", "onnxruntime_onnx"}
_BACKENDS = {"", "onnxruntime"}
_MAX_CONFIG_BYTES = 1 << 20


def folder_stamps(root: Path, published: Container[str]) -> dict[str, Hashable]:
    """Return a stamp for each folder that no generation names; the stamp changes when one of the folder's files does.

    The cost is a few stat calls per model.
    """
    names = [name for name in _folders(root) if not name.startswith(".") and name not in published]
    stamps = {name: _stamp(root / name) for name in names}
    return {name: stamp for name, stamp in stamps.items() if stamp}


def _stamp(folder: Path) -> tuple[Hashable, ...]:
    """Return the folder's stamp, empty if the folder holds no version."""
    parts: list[Hashable] = []
    for version, files in _versions(folder).items():
        parts += [(version, name, file_stamp(folder / str(version) / name)) for name in files]
    return (*parts, file_stamp(folder / CONFIG)) if parts else ()


def _versions(folder: Path) -> dict[int, list[str]]:
    """Return the files of each version without a manifest; one with a manifest is served only by a generation."""
    numbers = sorted(int(name) for name in _folders(folder) if name.isdecimal())
    files = {number: _list_files(folder / str(number)) for number in numbers}
    return {number: names for number, names in files.items() if MANIFEST not in names}


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def _list_files(folder: Path) -> list[str]:
    """Return the folder's sorted file names, empty if the folder was removed meanwhile."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def load_folder(root: Path, name: str, before: Served | None, policies: VersionPolicies, opener: Opener) -> Served:
    """Load the versions to serve from a model's folder; raise ModelError if one of them can't be served."""
    try:
        return _load(root / name, name, before, policies, opener)
    except OSError as error:
        raise ModelError(name, None, f"can't read {error.filename}: {error.strerror}") from error


def _load(folder: Path, name: str, before: Served | None, policies: VersionPolicies, opener: Opener) -> Served:
    config = _config(folder, name)
    policy = policies.policy_of(name, _policy(config))
    found = list(_versions(folder))
    chosen = policy.choose(found)
    if not chosen:
        raise ModelError(name, None, f"none of its versions {found} is {policy}")
    models = {}
    for version in chosen:
        path = folder / str(version) / (config.default_model_filename or MODEL)
        identity = (file_stamp(path), config.SerializeToString(deterministic=True))
        known = before.versions.get(version) if before else None
        if known and known.identity == identity:
            models[version] = known
        else:
            onnx = _read(path, name, version, opener.limits.model_bytes)
            models[version] = opener.open(Source(name, version, onnx, None, identity, config.max_batch_size))
            _check_config(config, name, version, {t.name for t in models[version].signature.inputs})
    return Served(models[chosen[0]], models, None, policy)


def _read(path: Path, name: str, version: int, limit_bytes: int) -> bytes:
    size = path.stat().st_size
    if size > limit_bytes:
        raise ModelError(name, version, f"the file has {size} bytes, but the limit is {limit_bytes}")
    return path.read_bytes()


def _config(folder: Path, name: str) -> ModelConfig:
    path = folder / CONFIG
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ModelError(name, None, f"{CONFIG} is larger than {_MAX_CONFIG_BYTES} bytes")
        config = text_format.Parse(path.read_text(), ModelConfig(), allow_unknown_field=True)
    except FileNotFoundError:
        return ModelConfig()
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(name, None, f"{CONFIG}: {error}") from error
    if config.name not in ("", name):
        raise ModelError(name, None, f"{CONFIG}: name {config.name!r} differs from the folder's name")
    if config.platform not in _PLATFORMS or config.backend not in _BACKENDS:
        wrong = config.platform or config.backend
        raise ModelError(name, None, f"{CONFIG}: {wrong!r} is not supported; only onnxruntime_onnx is")
    if "/" in config.default_model_filename:
        raise ModelError(name, None, f"{CONFIG}: default_model_filename {config.default_model_filename!r} is a path")
    return config


def _policy(config: ModelConfig) -> VersionPolicy:
    given = config.version_policy
    match given.WhichOneof("policy_choice"):
        case "latest":
            return VersionPolicy(latest=given.latest.num_versions or 1)
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            return VersionPolicy(specific=frozenset(given.specific.versions))
    return LATEST


def _check_config(config: ModelConfig, name: str, version: int, inputs: set[str]) -> None:
    configured = {tensor.name for tensor in config.input}
    if configured and configured != inputs:
        wrong = f"the graph's inputs {sorted(inputs)} contradict {CONFIG}'s {sorted(configured)}"
        raise ModelError(name, version, wrong)
