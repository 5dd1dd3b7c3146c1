"""The interface of a model store in a folder or a bucket."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from model_store.manifest import Generation, Manifest

KEEP_GENERATIONS = 5


@dataclass(frozen=True)
class Draft:
    """A model to publish. The store fills in the manifest's version, parent and file."""

    manifest: Manifest
    onnx: bytes


@dataclass(frozen=True)
class StoredModel:
    """A model read from a store, its bytes verified against its manifest."""

    manifest: Manifest
    onnx: bytes


@dataclass(frozen=True)
class Repair:
    """A repaired pointer: the name under which the damaged one was kept, and the generation in force now, if any."""

    set_aside: str
    generation: Generation | None


class ModelStore(Protocol):
    """Generations of models. Publishing is atomic: a reader sees the whole new generation or the whole previous one."""

    @property
    def location(self) -> str:
        """The store's folder or URL, for messages."""

    def stamp(self) -> Hashable:
        """Return a cheap value that changes whenever another generation becomes current; None in an empty store."""

    @property
    def verifies(self) -> bool:
        """True if only generations that a known key has signed are read."""

    def current(self) -> Generation | None:
        """Return the generation in force, or None in an empty store. Raise UntrustedError if a signature is lacking."""

    def generation(self, number: int) -> Generation:
        """Return a published generation; raise NotFoundError if it does not exist or was collected.

        Raise UntrustedError if a signature is lacking.
        """

    def unchecked(self, number: int | None) -> Generation | None:
        """Return a published generation, or for None the one in force, without checking its signature."""

    def generations(self) -> list[int]:
        """Return the numbers of the generations that can be rolled back to, oldest first."""

    def read(self, generation: Generation, model: str, limit_bytes: int | None = None) -> StoredModel:
        """Return a model of a generation, verified by size and sha256; raise NotFoundError or DamagedError.

        Raise TooLargeError, without reading the model, if its manifest says that it is larger than the limit.
        """

    def lead(self, owner: str) -> bool:
        """Try to become or stay the one process that trains for the store; return true if it leads now.

        Call `lead` every few seconds: on S3 each call renews the lease. The lead ends with `resign` or the process.
        """

    def resign(self) -> None:
        """Give up the lead, so that another process can take it."""

    def leader(self) -> str:
        """Return the name that the latest leader gave as `owner`, or "" if there is none."""

    def publish(self, drafts: Sequence[Draft]) -> Generation:
        """Make the drafts current together. Models of the current generation without a draft are carried over.

        Models of a current generation that is not trusted are not carried over: this store would sign for them.
        Raise StoreError if this store object led once and no longer does. One that never led may publish.
        """

    def collect(self, keep: int = KEEP_GENERATIONS) -> list[int]:
        """Remove all but the newest `keep` generations and the current one; return the removed numbers."""

    def repair(self) -> Repair | None:
        """Set a damaged pointer aside, and put the newest complete generation in force. None: the pointer is sound.

        A pointer to a generation that is not trusted is set aside too, if there is a trusted one to put in force.

        Raise DamagedError if another version of Headroom wrote the pointer: it is not damaged, only unreadable here.
        """

    def rollback(self, number: int) -> Generation:
        """Verify an older generation and make it current again."""
