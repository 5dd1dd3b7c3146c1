"""The parts of publishing, reading and collecting that all kinds of store share. The files of a store:

current.json                  the generation in force ("the pointer")
current.json.damaged          the latest pointer that could not be read
generation-<n>.json           one record for each generation that can be rolled back to
generation-<n>.sig            the record's signature, if the writer has a key
<model>/config.pbtxt
<model>/<version>/model.onnx, manifest.json
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from model_store.exceptions import DamagedError, NotFoundError, StoreError, TooLargeError, UntrustedError
from model_store.manifest import Generation, Manifest, ModelFile, ModelRef, decode, encode, has_other_format, sha256_of
from model_store.signing import Trust
from model_store.store import Draft, ModelStore, Repair, StoredModel
from model_store.triton import config_pbtxt

CURRENT = "current.json"
# A damaged pointer is kept under this name, until the next one.
SET_ASIDE = f"{CURRENT}.damaged"
MANIFEST = "manifest.json"
MODEL = "model.onnx"
CONFIG = "config.pbtxt"
# The largest record, manifest or signature that is read. Real ones have some KB.
DOCUMENT_BYTES = 1 << 20
_RECORD = re.compile(r"generation-(\d+)\.json")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Version:
    """A model version ready to write: the bytes of its files, and the reference for the generation's record."""

    model: str
    ref: ModelRef
    config: bytes
    manifest: bytes
    onnx: bytes


def finalise(draft: Draft, version: int, parent: ModelRef | None) -> Version:
    """Complete a draft with its version, parent and file hash; raise StoreError for an unsafe model name."""
    name = draft.manifest.model
    if not _MODEL_NAME.fullmatch(name):
        raise StoreError(f"model name {name!r}: use letters, digits, '-' and '_'")
    manifest = msgspec.structs.replace(
        draft.manifest,
        version=version,
        parent_version=parent.version if parent else None,
        file=ModelFile(MODEL, sha256_of(draft.onnx), len(draft.onnx)),
    )
    document = encode(manifest)
    ref = ModelRef(version, sha256_of(document))
    return Version(name, ref, config_pbtxt(manifest).encode(), document, draft.onnx)


def write_generation(
    number: int, drafts: Sequence[Draft], before: Generation | None, write: Callable[[Version], None]
) -> Generation:
    """Write a version of each draft. Return their generation, which keeps the other models of `before`."""
    models: dict[str, ModelRef] = dict(before.models) if before else {}
    for draft in drafts:
        version = finalise(draft, number, models.get(draft.manifest.model))
        write(version)
        models[version.model] = version.ref
    return Generation(number, models, datetime.now(UTC))


def read_verified(
    generation: Generation, model: str, read: Callable[[str, int], bytes], limit_bytes: int | None
) -> StoredModel:
    """Read a model and check its hashes; raise NotFoundError, or DamagedError when its bytes have changed.

    `read` takes a name and the largest size. No file is read beyond the size that its manifest tells.
    """
    ref = generation.models.get(model)
    if ref is None:
        raise NotFoundError(f"generation {generation.generation} has no model {model!r}")
    where = f"{model}/{ref.version}/{MANIFEST}"
    document = read(where, DOCUMENT_BYTES)
    if sha256_of(document) != ref.manifest_sha256:
        raise DamagedError(f"{where} is not the manifest that generation {generation.generation} names")
    manifest = decode(document, Manifest, where)
    path = f"{model}/{ref.version}/{manifest.file.name}"
    if "/" in manifest.file.name:
        raise DamagedError(f"{where} names a file elsewhere: {manifest.file.name!r}")
    if limit_bytes is not None and manifest.file.size_bytes > limit_bytes:
        raise TooLargeError(f"{path} has {manifest.file.size_bytes} bytes, but the limit is {limit_bytes}")
    onnx = read(path, manifest.file.size_bytes)
    if len(onnx) != manifest.file.size_bytes or sha256_of(onnx) != manifest.file.sha256:
        raise DamagedError(f"{path} differs from its manifest's size or sha256")
    return StoredModel(manifest, onnx)


def decode_record(data: bytes, where: str, number: int | None = None) -> Generation:
    """Decode the record of a generation, or the pointer for no number; raise DamagedError."""
    generation = decode(data, Generation, where)
    if number is not None and generation.generation != number:
        raise DamagedError(f"{where} is the record of generation {generation.generation}")
    return generation


def check_record(
    generation: Generation, data: bytes, where: str, trust: Trust, read: Callable[[str, int], bytes]
) -> None:
    """Raise UntrustedError if the trust demands a signature and `data`, the generation's record, has no valid one."""
    if not trust.verifies:
        return
    try:
        signature = read(signature_name(generation.generation), DOCUMENT_BYTES)
    except NotFoundError:
        signature = None
    trust.check(data, signature, where)


def trusted_current(store: ModelStore) -> Generation | None:
    """Return the generation in force, or None if there is none or it is not trusted."""
    with suppress(UntrustedError):
        return store.current()
    return None


def verify_generation(store: ModelStore, number: int) -> Generation:
    """Read every model of a generation and return it; raise NotFoundError or DamagedError if one fails."""
    generation = store.generation(number)
    for model in generation.models:
        store.read(generation, model)
    return generation


def is_damaged_pointer(data: bytes) -> bool:
    """Return true if the pointer can't be read; raise DamagedError if only another version of Headroom can read it."""
    if len(data) > DOCUMENT_BYTES:
        return True
    try:
        decode(data, Generation, CURRENT)
    except DamagedError:
        if has_other_format(data):
            raise
        return True
    return False


def newest_complete(store: ModelStore) -> Generation | None:
    """Return the newest generation whose models are all intact, or None."""
    for number in reversed(store.generations()):
        with suppress(DamagedError, NotFoundError, UntrustedError):
            return verify_generation(store, number)
    return None


def plan_repair(store: ModelStore, pointer: bytes) -> Repair | None:
    """Return how to repair the pointer, or None if it is to stay; raise DamagedError as `is_damaged_pointer` does."""
    is_damaged = is_damaged_pointer(pointer)
    if not is_damaged and (not store.verifies or trusted_current(store)):
        return None
    found = newest_complete(store)
    # Nothing can replace an untrusted pointer where no generation is trusted.
    return Repair(SET_ASIDE, found) if is_damaged or found else None


def record_name(number: int) -> str:
    return f"generation-{number}.json"


def signature_name(number: int) -> str:
    return f"generation-{number}.sig"


def record_numbers(names: Iterable[str]) -> list[int]:
    """Return the generation numbers of the record names among `names`, in ascending order."""
    return sorted(int(match[1]) for match in map(_RECORD.fullmatch, names) if match)


def outdated_generations(store: ModelStore, keep: int) -> list[int]:
    """Return all generations except the newest `keep` and the current one."""
    current = store.unchecked(None)
    numbers = store.generations()
    kept = set(numbers[-keep:]) | ({current.generation} if current else set())
    return [number for number in numbers if number not in kept]


def named_versions(store: ModelStore) -> set[tuple[str, int]]:
    """Return the (model, version) pairs that the current generation or any recorded one names."""
    named = [store.unchecked(None)]
    for number in store.generations():
        # Nobody can roll back to a damaged record, so its versions need not be kept.
        with suppress(DamagedError, NotFoundError):
            named.append(store.unchecked(number))
    return {(model, ref.version) for generation in named if generation for model, ref in generation.models.items()}
