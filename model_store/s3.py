"""A model store in an S3 bucket, or on a server that speaks the S3 protocol. Object keys equal a folder store's paths.

There are no locks: each write is conditional, and fails if another process has written that object meanwhile.
A version's manifest is written first, which reserves the number. The last write moves the pointer, which makes the
generation visible. If that write fails, another process has published, so the writer starts again from the generation
now in force.
"""

import random
import re
import time
from collections.abc import Callable, Hashable, Sequence

from model_store.bucket import Bucket, S3Object
from model_store.exceptions import ConflictError, StoreError, UntrustedError
from model_store.lease import Lease
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
    verify_generation,
    write_generation,
)
from model_store.signing import NO_TRUST, Trust
from model_store.store import KEEP_GENERATIONS, Draft, Repair, StoredModel

# Seconds from a lease's last renewal until the lease expires.
LEASE_S = 15.0
# Tries of one publication that conflicts with other writers.
_ATTEMPTS = 5
# The longest random wait after the first conflict, in seconds; it doubles with each conflict.
_PAUSE_S = 0.05
_VERSION_FILE = re.compile(r"([^/]+)/(\d+)/.+")


class S3Store:
    """A store under a prefix of a bucket. Neither readers nor writers wait for each other."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        lease_s: float = LEASE_S,
        monotonic: Callable[[], float] = time.monotonic,
        trust: Trust = NO_TRUST,
    ) -> None:
        self._bucket = Bucket(bucket, prefix)
        self._trust = trust
        self._lease = Lease(self._bucket, lease_s, monotonic)

    @property
    def location(self) -> str:
        return self._bucket.location

    def stamp(self) -> Hashable:
        return self._bucket.etag(CURRENT)

    @property
    def verifies(self) -> bool:
        return self._trust.verifies

    def current(self) -> Generation | None:
        found = self._bucket.find(CURRENT)
        return self._checked(found.data, CURRENT, None) if found else None

    def generation(self, number: int) -> Generation:
        name = record_name(number)
        return self._checked(self._read(name), name, number)

    def unchecked(self, number: int | None) -> Generation | None:
        if number is None:
            return _decode_pointer(self._bucket.find(CURRENT))
        return decode_record(self._read(record_name(number)), record_name(number), number)

    def _checked(self, data: bytes, name: str, number: int | None) -> Generation:
        generation = decode_record(data, name, number)
        check_record(generation, data, name, self._trust, self._read)
        return generation

    def generations(self) -> list[int]:
        return record_numbers(self._bucket.listing())

    def read(self, generation: Generation, model: str, limit_bytes: int | None = None) -> StoredModel:
        return read_verified(generation, model, self._read, limit_bytes)

    def lead(self, owner: str) -> bool:
        return self._lease.acquire(owner)

    def leader(self) -> str:
        return self._lease.holder()

    def resign(self) -> None:
        self._lease.release()

    def publish(self, drafts: Sequence[Draft]) -> Generation:
        if not drafts:
            raise StoreError("nothing to publish")
        for attempt in range(_ATTEMPTS):
            try:
                return self._publish_once(drafts)
            except ConflictError:
                time.sleep(random.uniform(0, _PAUSE_S * 2**attempt))
        raise StoreError(f"other writers published in {self.location} during each of {_ATTEMPTS} attempts; try again")

    def collect(self, keep: int = KEEP_GENERATIONS) -> list[int]:
        removed = outdated_generations(self, keep)
        for number in removed:
            self._bucket.remove(record_name(number))
            self._bucket.remove(signature_name(number))
        # Another writer may be writing versions above the current generation. Read the current one before the named
        # versions: a version published in between is then above the limit, and stays.
        current = self.unchecked(None)
        if current:
            self._remove_unnamed_versions(current.generation)
        return removed

    def repair(self) -> Repair | None:
        before = self._bucket.find(CURRENT, is_cut_off=True)
        if before is None:
            return None
        planned = plan_repair(self, before.data)
        if planned is None:
            return None
        self._lease.confirm()
        self._bucket.put(planned.set_aside, before.data)
        if planned.generation:
            self._move_pointer(before, self._read(record_name(planned.generation.generation)))
        else:
            self._bucket.remove(CURRENT, before.etag)
        return planned

    def rollback(self, number: int) -> Generation:
        before = self._bucket.find(CURRENT)
        generation = verify_generation(self, number)
        # The record's own bytes: its signature is of these.
        self._move_pointer(before, self._read(record_name(number)))
        return generation

    def _publish_once(self, drafts: Sequence[Draft]) -> Generation:
        """Publish; raise ConflictError when another writer took the number or moved the pointer."""
        before = self._bucket.find(CURRENT)
        current = _decode_pointer(before)
        number = self._next_number(current)
        generation = write_generation(number, drafts, self._carried_over(before), self._write_version)
        record = encode(generation)
        signature = self._trust.sign(record)
        self._lease.confirm()
        self._bucket.create(record_name(number), record)
        if signature:
            self._bucket.put(signature_name(number), signature)
        try:
            self._move_pointer(before, record)
        except ConflictError:
            # The generation was never in force. `collect` removes its versions later.
            self._bucket.remove(record_name(number))
            if signature:
                self._bucket.remove(signature_name(number))
            raise
        return generation

    def _carried_over(self, before: S3Object | None) -> Generation | None:
        """Return the generation whose models are carried over: the one in force, if it is trusted."""
        try:
            return self._checked(before.data, CURRENT, None) if before else None
        except UntrustedError:
            return None

    def _move_pointer(self, before: S3Object | None, document: bytes) -> None:
        """Point to a generation by its record; raise ConflictError when the pointer is no longer `before`."""
        try:
            if before:
                self._bucket.replace(CURRENT, document, before.etag)
            else:
                self._bucket.create(CURRENT, document)
        except ConflictError:
            # If the answer to a successful write is lost, boto3 writes again and conflicts with its own first write.
            found = self._bucket.find(CURRENT)
            if found is None or found.data != document:
                raise

    def _next_number(self, current: Generation | None) -> int:
        keys = self._bucket.listing()
        versions = (int(match[2]) for match in map(_VERSION_FILE.fullmatch, keys) if match)
        return max([current.generation if current else 0, *record_numbers(keys), *versions]) + 1

    def _write_version(self, version: Version) -> None:
        folder = f"{version.model}/{version.ref.version}"
        self._bucket.create(f"{folder}/{MANIFEST}", version.manifest)
        self._bucket.create(f"{folder}/{MODEL}", version.onnx)
        self._bucket.put(f"{version.model}/{CONFIG}", version.config)

    def _remove_unnamed_versions(self, up_to: int) -> None:
        named = named_versions(self)
        for key in self._bucket.listing():
            match = _VERSION_FILE.fullmatch(key)
            if match and int(match[2]) <= up_to and (match[1], int(match[2])) not in named:
                self._bucket.remove(key)

    def _read(self, key: str, limit_bytes: int = DOCUMENT_BYTES) -> bytes:
        return self._bucket.get(key, limit_bytes).data


def _decode_pointer(pointer: S3Object | None) -> Generation | None:
    return decode_record(pointer.data, CURRENT) if pointer else None
