"""Leadership by a lease: an object that the holder keeps rewriting, and that a contender takes when it stops changing.

The protocol never compares clocks of two machines. A contender measures on its own clock how long the object has stayed
the same. After the lease's whole time it takes the lease. The write that takes it is conditional, so it fails if the
object has changed. A holder may have been paused for longer than the lease, so `confirm` renews the lease before the
holder publishes.
"""

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from model_store.bucket import Bucket, S3Object
from model_store.exceptions import ConflictError, StoreError

_KEY = ".leader"


class _Document(msgspec.Struct, frozen=True):
    """The content of the lease object. `renewals` makes each write, and hence its ETag, differ from the last."""

    owner: str
    token: str
    lease_s: float
    renewals: int = 0


class Lease:
    """One contender's view of the lease. All methods are thread-safe."""

    def __init__(self, bucket: Bucket, lease_s: float, monotonic: Callable[[], float]) -> None:
        self._bucket = bucket
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._renewals = 0
        self._owner = ""
        self._has_led = False
        # The lease's ETag while this contender holds it, else None.
        self._held_etag: str | None = None
        # The ETag of another's lease, and when this contender first saw that ETag.
        self._watched: tuple[str, float] = "", 0.0

    def acquire(self, owner: str) -> bool:
        """Renew the lease if held, else take it if it is free or has run out. Return true if it is held now."""
        with self._lock:
            self._owner = owner
            if not self._renew():
                self._take_if_free()
            self._has_led = self._has_led or self._held_etag is not None
            return self._held_etag is not None

    def confirm(self) -> None:
        """Renew the lease; raise StoreError if it was held once and is lost. Do nothing if it was never held."""
        with self._lock:
            if not self._has_led or self._renew():
                return
        holder = self.holder()
        lost = f"lost the lead to {holder}" if holder else "gave up the lead"
        raise StoreError(f"can't publish in {self._bucket.location}: {self._owner} {lost}")

    def release(self) -> None:
        """Remove the lease if held, so that another can take it at once. If the removal fails, the lease runs out."""
        with self._lock:
            if self._held_etag is not None:
                with suppress(StoreError):
                    self._bucket.remove(_KEY, self._held_etag)
            self._held_etag = None

    def holder(self) -> str:
        """Return the owner that the lease names, or "" when there is no lease."""
        found = self._bucket.find(_KEY)
        document = _decode(found) if found else None
        return document.owner if document else ""

    def _renew(self) -> bool:
        if self._held_etag is not None:
            try:
                self._held_etag = self._bucket.replace(_KEY, self._next_document(), self._held_etag)
            except ConflictError:
                self._held_etag = self._etag_if_ours(self._bucket.find(_KEY))
        return self._held_etag is not None

    def _take_if_free(self) -> None:
        found = self._bucket.find(_KEY)
        self._held_etag = self._etag_if_ours(found)
        if self._held_etag is None and (found is None or self._has_run_out(found)):
            with suppress(ConflictError):
                write = self._next_document()
                self._held_etag = (
                    self._bucket.replace(_KEY, write, found.etag) if found else self._bucket.create(_KEY, write)
                )

    def _etag_if_ours(self, found: S3Object | None) -> str | None:
        """Return the object's ETag if it is this contender's lease: a write can succeed although its answer is lost."""
        document = _decode(found) if found else None
        return found.etag if found and document and document.token == self._token else None

    def _has_run_out(self, found: S3Object) -> bool:
        now = self._monotonic()
        if found.etag != self._watched[0]:
            self._watched = found.etag, now
        document = _decode(found)
        return now - self._watched[1] >= (document.lease_s if document else self._lease_s)

    def _next_document(self) -> bytes:
        self._renewals += 1
        return msgspec.json.encode(_Document(self._owner, self._token, self._lease_s, self._renewals))


def _decode(found: S3Object) -> _Document | None:
    """Return the lease document, or None for a malformed one, which runs out like any other's lease."""
    try:
        return msgspec.json.decode(found.data, type=_Document)
    except msgspec.DecodeError:
        return None
