"""A model store in a folder, in the layout of a Triton model repository."""

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model_store.exceptions import DamagedError, NotFoundError, StoreError, StoreUnavailableError
from model_store.manifest import Generation, encode
from model_store.publication import (
    CONFIG,
    CURRENT,
    DOCUMENT_BYTES,
    MANIFEST,
    MODEL,
    Version,
    check_record,
    decode_record,
    named_versions,
    outdated_generations,
    plan_repair,
    read_verified,
    record_name,
    record_numbers,
    signature_name,
    trusted_current,
    verify_generation,
    write_generation,
)
from model_store.signing import NO_TRUST, Trust
from model_store.store import KEEP_GENERATIONS, Draft, Repair, StoredModel

# Lock files. The trainer holds the first while it runs, a writer the second while it writes.
# The kernel releases both when the process ends.
_LEADER, _WRITER = ".leader", ".writer"


class FolderStore:
    """A store in a local or shared folder. Writers wait for each other; readers never wait."""

    def __init__(self, root: Path, trust: Trust = NO_TRUST) -> None:
        self._root = root
        self._trust = trust
        self._leading = threading.Lock()
        self._leadership: int | None = None

    @property
    def location(self) -> str:
        return str(self._root)

    def stamp(self) -> Hashable:
        # Each publication renames a new inode into place, so two within one tick of the file clock still differ.
        try:
            status = os.stat(self._root / CURRENT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(self._root, error) from error
        return status.st_mtime_ns, status.st_ino, status.st_size

    @property
    def verifies(self) -> bool:
        return self._trust.verifies

    def current(self) -> Generation | None:
        try:
            return self._checked(CURRENT, None)
        except NotFoundError:
            return None

    def generation(self, number: int) -> Generation:
        return self._checked(record_name(number), number)

    def unchecked(self, number: int | None) -> Generation | None:
        try:
            return decode_record(self._read(name := CURRENT if number is None else record_name(number)), name, number)
        except NotFoundError:
            if number is None:
                return None
            raise

    def _checked(self, name: str, number: int | None) -> Generation:
        data = self._read(name)
        generation = decode_record(data, name, number)
        check_record(generation, data, name, self._trust, self._read)
        return generation

    def generations(self) -> list[int]:
        try:
            return record_numbers(os.listdir(self._root))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable(self._root, error) from error

    def read(self, generation: Generation, model: str, limit_bytes: int | None = None) -> StoredModel:
        return read_verified(generation, model, self._read, limit_bytes)

    def lead(self, owner: str) -> bool:
        # A training pass and the renewal of the lead may call this at the same time.
        with self._leading:
            if self._leadership is not None and not _is_file(self._leadership, self._root / _LEADER):
                # The folder was replaced, so this lock keeps nobody from leading.
                self._give_up()
            if self._leadership is None:
                with _store_errors(self._root):
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
        with self._leading:
            self._give_up()

    def _give_up(self) -> None:
        if self._leadership is not None:
            os.close(self._leadership)
            self._leadership = None

    def publish(self, drafts: Sequence[Draft]) -> Generation:
        if not drafts:
            raise StoreError("nothing to publish")
        with _store_errors(self._root), _writer_lock(self._root):
            before = trusted_current(self)
            generation = write_generation(self._next_number(), drafts, before, self._write_version)
            record = encode(generation)
            signature = self._trust.sign(record)
            _write_atomically(self._root / record_name(generation.generation), record)
            if signature:
                _write_atomically(self._root / signature_name(generation.generation), signature)
            _write_atomically(self._root / CURRENT, record)
        return generation

    def collect(self, keep: int = KEEP_GENERATIONS) -> list[int]:
        with _store_errors(self._root), _writer_lock(self._root):
            removed = outdated_generations(self, keep)
            for number in removed:
                for name in (record_name(number), signature_name(number)):
                    (self._root / name).unlink(missing_ok=True)
            self._remove_unnamed_versions()
        return removed

    def repair(self) -> Repair | None:
        with _store_errors(self._root), _writer_lock(self._root):
            try:
                data = self._read(CURRENT, is_cut_off=True)
            except NotFoundError:
                return None
            planned = plan_repair(self, data)
            if planned is None:
                return None
            # Readers never see a store without a pointer while there is a generation.
            _write_atomically(self._root / planned.set_aside, data)
            if planned.generation:
                _write_atomically(self._root / CURRENT, self._read(record_name(planned.generation.generation)))
            else:
                (self._root / CURRENT).unlink()
        return planned

    def rollback(self, number: int) -> Generation:
        generation = verify_generation(self, number)
        with _store_errors(self._root), _writer_lock(self._root):
            # The record's own bytes: its signature is of these.
            _write_atomically(self._root / CURRENT, self._read(record_name(number)))
        return generation

    def _read(self, name: str, limit_bytes: int = DOCUMENT_BYTES, is_cut_off: bool = False) -> bytes:
        """Return a file's bytes. A longer file is damage, or is cut off at one byte more than the limit."""
        path = self._root / name
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size > limit_bytes and not is_cut_off:
                    raise DamagedError(f"{path} has more than {limit_bytes} bytes")
                return file.read(limit_bytes + 1)
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} does not exist") from error
        except OSError as error:
            raise StoreUnavailableError(f"can't read {path}: {error.strerror}") from error

    def _next_number(self) -> int:
        versions = (int(p.name) for p in self._root.glob("*/*") if p.name.isdigit())
        return max([0, *self.generations(), *versions]) + 1

    def _write_version(self, version: Version) -> None:
        folder = self._root / version.model
        folder.mkdir(exist_ok=True)
        _write_atomically(folder / CONFIG, version.config)
        # Triton ignores folders whose names are not numbers, so the rename shows it the whole version at once.
        partial = folder / f".partial-{version.ref.version}-{secrets.token_hex(4)}"
        partial.mkdir()
        try:
            _write_synced(partial / MODEL, version.onnx)
            _write_synced(partial / MANIFEST, version.manifest)
            _sync_folder(partial)
            os.rename(partial, folder / str(version.ref.version))
        except OSError:
            # On a full volume each pass would leave such a folder.
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync_folder(folder)

    def _remove_unnamed_versions(self) -> None:
        named = {(model, str(version)) for model, version in named_versions(self)}
        for folder in self._root.glob("*/*"):
            stale = folder.name.isdigit() and (folder.parent.name, folder.name) not in named
            if stale or folder.name.startswith(".partial-"):
                shutil.rmtree(folder, ignore_errors=True)


def _unavailable(root: Path, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(f"can't use model store {root}: {error.strerror}")


@contextmanager
def _store_errors(root: Path) -> Iterator[None]:
    """Turn an OSError into StoreUnavailableError."""
    try:
        yield
    except OSError as error:
        raise _unavailable(root, error) from error


@contextmanager
def _writer_lock(root: Path) -> Iterator[None]:
    """Hold the writer's lock, so that numbering a generation and moving the pointer are one step."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(root / _WRITER, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path, wait: bool) -> int | None:
    """Return a descriptor that holds the file's lock until closed, or None when another process holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_file(descriptor: int, path: Path) -> bool:
    """Return true if the descriptor is of the file that has this path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_atomically(path: Path, data: bytes) -> None:
    """Write so that a reader finds the old file or the new one, even after a crash.

    The data is synced first, then the file is renamed, then the folder that holds the name is synced.
    """
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
