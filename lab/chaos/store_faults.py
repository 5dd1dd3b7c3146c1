"""Faults of a model store in a folder. Each breaks the store's folder, and returns what ends the fault."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from model_store import Draft, open_store

End = Callable[[], None]

_CLONE_NEWNS: Final = 0x00020000
# The store's volume, where mounting is allowed. Two of the demo's models take some 200 KiB.
_VOLUME: Final = "size=32m"
_FILLER: Final = ".filler"


def isolate_mounts() -> str:
    """Give this process and its children mounts of their own; return why that is impossible, or "" on success.

    Call it before the process has threads: a thread keeps the mounts that it started with.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return "this system has no mount namespaces"
    if libc.unshare(_CLONE_NEWNS) != 0:
        return f"mounting is not allowed: {os.strerror(ctypes.get_errno())}"
    try:
        _run("mount", "--make-rprivate", "/")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"mounting is not allowed: {error}"
    return ""


@contextmanager
def volume(store: Path) -> Iterator[None]:
    """Put the store on a small volume of its own, which a fault can fill."""
    store.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", _VOLUME, "chaos", store)
    try:
        yield
    finally:
        _run("umount", "--lazy", store)


def _spoil_pointer(store: Path) -> End:
    (store / "current.json").write_bytes(b"\x00garbage")
    return _nothing


def _spoil_manifests(store: Path) -> End:
    for file in store.glob("*/*/manifest.json"):
        file.write_bytes(b"\x00garbage")
    return _nothing


def _delete_files(store: Path) -> End:
    for file in store.rglob("*"):
        if file.is_file():
            file.unlink(missing_ok=True)
    return _nothing


def _make_read_only(store: Path) -> End:
    _run("mount", "--bind", store, store)
    _run("mount", "-o", "remount,ro,bind", store)
    return lambda: _run("umount", "--lazy", store)


def _fill(store: Path) -> End:
    filler = store / _FILLER
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass
    return filler.unlink


def _replace_by_backup(store: Path) -> End:
    """Restore the oldest generation that is left, as from a backup: the numbers go back, and are given again."""
    opened = open_store(str(store))
    oldest = opened.generation(opened.generations()[0])
    kept = [opened.read(oldest, model) for model in oldest.models]
    _empty(store)
    opened.publish([Draft(model.manifest, model.onnx) for model in kept])
    return _nothing


def _replace_by_later(store: Path) -> End:
    """Swap in the store of another trainer, with other models and far higher numbers."""
    opened = open_store(str(store))
    current = opened.current()
    if current is None:
        return _nothing
    kept = [opened.read(current, model) for model in current.models]
    _empty(store)
    for model in current.models:
        (store / model / "1000000").mkdir(parents=True)
    opened.publish([Draft(model.manifest, model.onnx) for model in kept])
    return _nothing


def _empty(store: Path) -> None:
    """Remove everything from the store: its folder may be a mount, which can't be renamed."""
    for entry in store.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _nothing() -> None:
    """Mend nothing: the loop itself must."""


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


STORE_FAULTS: Final[Mapping[str, Callable[[Path], End]]] = {
    "garbage in current.json": _spoil_pointer,
    "garbage in every manifest": _spoil_manifests,
    "all files deleted": _delete_files,
    "replaced by an older backup": _replace_by_backup,
    "replaced by a later one": _replace_by_later,
}
# These need mounts of their own.
VOLUME_FAULTS: Final[Mapping[str, Callable[[Path], End]]] = {"read-only": _make_read_only, "full": _fill}
