"""A model store in a folder, in the layout of a Triton model repository.

<root>/current.json                  the generation in force
<root>/generation-<n>.json           every generation that can be rolled back to
<root>/<model>/config.pbtxt
<root>/<model>/<version>/model.onnx, manifest.json
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from model_store.exceptions import DamagedError, NotFoundError, StoreError, StoreUnavailableError
from model_store.manifest import Generation, Manifest, ModelFile, ModelRef, decode, encode, sha256_of
from model_store.store import KEEP_GENERATIONS, Draft, StoredModel
from model_store.triton import config_pbtxt

_CURRENT = "current.json"
_MANIFEST = "manifest.json"
# Held by the trainer while it lives, and by any writer while it writes. The kernel frees both with the process.
_LEADER, _WRITER = ".leader", ".writer"
_GENERATION_FILE = re.compile(r"generation-(\d+)\.json")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class FolderStore:
    """A store in a local or shared folder. Writers take turns; readers never wait."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._leadership: int | None = None

    @property
    def location(self) -> str:
        return str(self._root)

    def stamp(self) -> Hashable:
        # A rename always brings a new inode, so that even two publications within the clock's grain differ.
        try:
            status = os.stat(self._root / _CURRENT)
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def current(self) -> Generation | None:
        try:
            return decode(_read(self._root / _CURRENT), Generation, _CURRENT)
        except NotFoundError:
            return None

    def generation(self, number: int) -> Generation:
        name = f"generation-{number}.json"
        return decode(_read(self._root / name), Generation, name)

    def generations(self) -> list[int]:
        if not self._root.is_dir():
            return []
        matches = (_GENERATION_FILE.fullmatch(entry.name) for entry in self._root.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def read(self, generation: Generation, model: str) -> StoredModel:
        ref = generation.models.get(model)
        if ref is None:
            raise NotFoundError(f"generation {generation.generation} has no model {model!r}")
        folder = self._root / model / str(ref.version)
        document = _read(folder / _MANIFEST)
        where = f"{model}/{ref.version}/{_MANIFEST}"
        if sha256_of(document) != ref.manifest_sha256:
            raise DamagedError(f"{where} is not the one that generation {generation.generation} names")
        manifest = decode(document, Manifest, where)
        onnx = _read(folder / manifest.file.name)
        if len(onnx) != manifest.file.size_bytes or sha256_of(onnx) != manifest.file.sha256:
            raise DamagedError(f"{model}/{ref.version}/{manifest.file.name} differs from its manifest's size or sha256")
        return StoredModel(manifest, onnx)

    def lead(self, owner: str) -> bool:
        if self._leadership is None:
            with _reported(self._root):
                self._root.mkdir(parents=True, exist_ok=True)
                self._leadership = _lock(self._root / _LEADER, wait=False)
                if self._leadership is not None:
                    os.ftruncate(self._leadership, 0)
                    os.pwrite(self._leadership, owner.encode(), 0)
        return self._leadership is not None

    def leader(self) -> str:
        try:
            return (self._root / _LEADER).read_text(errors="replace")
        except OSError:
            return ""

    def resign(self) -> None:
        if self._leadership is not None:
            os.close(self._leadership)
            self._leadership = None

    def publish(self, drafts: Sequence[Draft]) -> Generation:
        if not drafts:
            raise StoreError("nothing to publish")
        with _reported(self._root), _writing(self._root):
            before = self.current()
            number = self._next_number()
            models = dict(before.models) if before else {}
            for draft in drafts:
                parent = models.get(draft.manifest.model)
                models[draft.manifest.model] = self._write_version(draft, number, parent)
            generation = Generation(number, models, datetime.now(UTC))
            _write_atomically(self._root / f"generation-{number}.json", encode(generation))
            _write_atomically(self._root / _CURRENT, encode(generation))
        return generation

    def collect(self, keep: int = KEEP_GENERATIONS) -> list[int]:
        with _reported(self._root), _writing(self._root):
            current = self.current()
            numbers = self.generations()
            kept = set(numbers[-keep:]) | ({current.generation} if current else set())
            removed = [number for number in numbers if number not in kept]
            for number in removed:
                (self._root / f"generation-{number}.json").unlink(missing_ok=True)
            named = [current] if current else []
            for number in kept:
                # A damaged record names nothing that could be rolled back to.
                with suppress(DamagedError):
                    named.append(self.generation(number))
            self._remove_unnamed_versions(named)
        return removed

    def rollback(self, number: int) -> Generation:
        generation = self.generation(number)
        for model in generation.models:
            self.read(generation, model)
        with _reported(self._root), _writing(self._root):
            _write_atomically(self._root / _CURRENT, encode(generation))
        return generation

    def _next_number(self) -> int:
        versions = (int(p.name) for p in self._root.glob("*/*") if p.name.isdigit())
        return max([0, *self.generations(), *versions]) + 1

    def _write_version(self, draft: Draft, version: int, parent: ModelRef | None) -> ModelRef:
        name = draft.manifest.model
        if not _MODEL_NAME.fullmatch(name):
            raise StoreError(f"model name {name!r}: use letters, digits, '-' and '_'")
        manifest = msgspec.structs.replace(
            draft.manifest,
            version=version,
            parent_version=parent.version if parent else None,
            file=ModelFile("model.onnx", sha256_of(draft.onnx), len(draft.onnx)),
        )
        document = encode(manifest)
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        _write_atomically(folder / "config.pbtxt", config_pbtxt(manifest).encode())
        # Triton ignores folders whose names are not numbers, so the version appears to it whole, by the rename.
        partial = folder / f".partial-{version}-{secrets.token_hex(4)}"
        partial.mkdir()
        _write_synced(partial / "model.onnx", draft.onnx)
        _write_synced(partial / _MANIFEST, document)
        _sync_folder(partial)
        os.rename(partial, folder / str(version))
        _sync_folder(folder)
        return ModelRef(version, sha256_of(document))

    def _remove_unnamed_versions(self, kept: list[Generation]) -> None:
        named = {(model, str(ref.version)) for g in kept for model, ref in g.models.items()}
        for folder in self._root.glob("*/*"):
            stale = folder.name.isdigit() and (folder.parent.name, folder.name) not in named
            if stale or folder.name.startswith(".partial-"):
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist") from error
    except OSError as error:
        raise StoreUnavailableError(f"can't read {path}: {error.strerror}") from error


@contextmanager
def _reported(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(f"can't write to model store {root}: {error.strerror}") from error


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """One writer at a time: numbers are given and the pointer is moved in turn."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(root / _WRITER, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path, wait: bool) -> int | None:
    """A descriptor that holds the file's lock until it is closed; None when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_atomically(path: Path, data: bytes) -> None:
    """A reader finds the old file or the new one: data first, then the name, then the folder that holds the name."""
    partial = path.with_name(f".partial-{path.name}-{secrets.token_hex(4)}")
    try:
        _write_synced(partial, data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
