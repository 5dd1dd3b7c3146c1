"""The one interface to a model store, whatever holds it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_store.exceptions import StoreError
from model_store.manifest import Generation, Manifest

KEEP_GENERATIONS = 5


@dataclass(frozen=True)
class Draft:
    """A model to publish; the store fills in the manifest's version, parent and file."""

    manifest: Manifest
    onnx: bytes


@dataclass(frozen=True)
class StoredModel:
    """A model as read back, its bytes verified against its manifest."""

    manifest: Manifest
    onnx: bytes


class ModelStore(Protocol):
    """Generations of models. Publishing is one atomic act; a reader sees a whole generation or the one before."""

    @property
    def location(self) -> str:
        """The folder or URL, for messages."""

    def stamp(self) -> Hashable:
        """A cheap value that changes when another generation becomes current; None when there is none."""

    def current(self) -> Generation | None:
        """The generation in force, or None in an empty store."""

    def generation(self, number: int) -> Generation:
        """A published generation that has not been collected yet; NotFoundError otherwise."""

    def generations(self) -> list[int]:
        """The generations that can be rolled back to, oldest first."""

    def read(self, generation: Generation, model: str, limit_bytes: int | None = None) -> StoredModel:
        """A model of a generation, verified by size and sha256; NotFoundError or DamagedError otherwise.

        One that says that it is larger than the limit is a TooLargeError, and isn't read.
        """

    def lead(self, owner: str) -> bool:
        """Whether this store object is the one that may train for the store; it stays so until it resigns or dies.

        A leader calls it again and again, every few seconds: where leading is a lease, that is what renews it.
        """

    def resign(self) -> None:
        """Lets another lead."""

    def leader(self) -> str:
        """Who last led, as it named itself."""

    def publish(self, drafts: Sequence[Draft]) -> Generation:
        """Makes the drafts current together. Models of the current generation that have no draft are carried over.

        StoreError when this store object has led and no longer does; one that has never led may publish.
        """

    def collect(self, keep: int = KEEP_GENERATIONS) -> list[int]:
        """Removes all but the newest `keep` generations, never the current one; returns the removed numbers."""

    def rollback(self, number: int) -> Generation:
        """Makes an older generation current again."""


def open_store(location: str) -> ModelStore:
    """The store at a folder's path or at s3://bucket/prefix; StoreError for any other kind of location."""
    from model_store.folder import FolderStore

    scheme, separator, path = location.partition("://")
    if not separator:
        return FolderStore(Path(location))
    if scheme != "s3" or not path.partition("/")[0]:
        raise StoreError(f"model store {location!r}: only folders and s3://bucket/prefix are supported")
    return _open_s3(path)


def _open_s3(path: str) -> ModelStore:
    try:
        from model_store.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StoreError(f"model store s3://{path} needs {error.name}: pip install 'headroom[s3]'") from error
    bucket, _, prefix = path.partition("/")
    return S3Store(bucket, prefix.strip("/"))
