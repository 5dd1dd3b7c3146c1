"""Leadership by a lease: an object that its holder writes again and again, and a contender takes when that stops.

No machine's clock is compared with another's. A contender takes the lease only after it has itself seen the very same
object for as long as the lease is good, and by a write on the condition that it is still that object. The holder may
have been paused for longer than that, so it renews once more before it does what only a leader may do.
"""

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from model_store.bucket import Bucket, Stored
from model_store.exceptions import ConflictError, StoreError

_KEY = ".leader"


class _Document(msgspec.Struct, frozen=True):
    """What is in the object. `renewals` makes each write differ from the one before, and with it the ETag."""

    owner: str
    token: str
    lease_s: float
    renewals: int = 0


class Lease:
    """One contender's view of the lease; its methods may be called from any thread."""

    def __init__(self, bucket: Bucket, lease_s: float, monotonic: Callable[[], float]) -> None:
        self._bucket = bucket
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._renewals = 0
        self._owner = ""
        self._has_led = False
        # The ETag of the lease while it is ours; else that of another's, and when we first saw it.
        self._held: str | None = None
        self._watched: tuple[str, float] = "", 0.0

    def acquire(self, owner: str) -> bool:
        """Takes the lease when it is free or has run out, renews it when it is ours; whether it is ours now."""
        with self._lock:
            self._owner = owner
            if not self._renewed():
                self._contend()
            self._has_led = self._has_led or self._held is not None
            return self._held is not None

    def confirm(self) -> None:
        """Renews the lease; StoreError when it was ours once and is no longer. Who never led need not lead."""
        with self._lock:
            if not self._has_led or self._renewed():
                return
        holder = self.holder()
        lost = f"lost the lead to {holder}" if holder else "has given up the lead"
        raise StoreError(f"can't publish in {self._bucket.location}: {self._owner} {lost}")

    def release(self) -> None:
        """Lets another take the lease at once, if it is ours; where that fails, it runs out."""
        with self._lock:
            if self._held is not None:
                with suppress(StoreError):
                    self._bucket.remove(_KEY, self._held)
            self._held = None

    def holder(self) -> str:
        """The owner that the lease names; nothing when there is no lease."""
        found = self._bucket.find(_KEY)
        document = _decode(found) if found else None
        return document.owner if document else ""

    def _renewed(self) -> bool:
        if self._held is not None:
            try:
                self._held = self._bucket.replace(_KEY, self._document(), self._held)
            except ConflictError:
                self._held = self._own(self._bucket.find(_KEY))
        return self._held is not None

    def _contend(self) -> None:
        found = self._bucket.find(_KEY)
        self._held = self._own(found)
        if self._held is None and (found is None or self._has_run_out(found)):
            with suppress(ConflictError):
                write = self._document()
                self._held = (
                    self._bucket.replace(_KEY, write, found.etag) if found else self._bucket.create(_KEY, write)
                )

    def _own(self, found: Stored | None) -> str | None:
        """The ETag of a lease that is ours after all: a write may succeed although its answer is lost."""
        document = _decode(found) if found else None
        return found.etag if found and document and document.token == self._token else None

    def _has_run_out(self, found: Stored) -> bool:
        now = self._monotonic()
        if found.etag != self._watched[0]:
            self._watched = found.etag, now
        document = _decode(found)
        return now - self._watched[1] >= (document.lease_s if document else self._lease_s)

    def _document(self) -> bytes:
        self._renewals += 1
        return msgspec.json.encode(_Document(self._owner, self._token, self._lease_s, self._renewals))


def _decode(found: Stored) -> _Document | None:
    """None for what is no lease; it is waited out like another's."""
    try:
        return msgspec.json.decode(found.data, type=_Document)
    except msgspec.DecodeError:
        return None
