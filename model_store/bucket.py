"""A client of the objects under one prefix of an S3 bucket, with conditional writes and removals."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from model_store.exceptions import ConflictError, DamagedError, NotFoundError, StoreUnavailableError

_CONFIG = Config(
    connect_timeout=3,
    # The longest wait for data. Then the next poll is not late when the server has become silent.
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 3},
    # The store verifies sha256 itself, and some S3-compatible servers don't know the checksums that boto3 would add.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
# The largest lease or pointer.
_SMALL_BYTES = 1 << 20
_REFUSALS = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class S3Object:
    """An object's bytes, and the ETag that identifies them in conditional requests."""

    data: bytes
    etag: str


class Bucket:
    """A client of one prefix. boto3 finds the endpoint, the region and the credentials.

    Every method is thread-safe, and raises StoreUnavailableError when S3 can't be reached or refuses the request.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._cached_client: Any = None

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str, limit_bytes: int, is_cut_off: bool = False) -> S3Object:
        """Return the object; raise NotFoundError when it does not exist.

        Raise DamagedError when it is larger than the limit, or return what is one byte longer than the limit.
        """
        with self._store_errors(key):
            answer = self._client().get_object(Bucket=self._bucket, Key=self._prefix + key)
            with answer["Body"] as body:
                if answer["ContentLength"] > limit_bytes and not is_cut_off:
                    raise DamagedError(f"{self.location}/{key} has more than {limit_bytes} bytes")
                return S3Object(body.read(limit_bytes + 1), answer["ETag"])

    def find(self, key: str, is_cut_off: bool = False) -> S3Object | None:
        """Return a small object as `get` does, or None when it does not exist."""
        try:
            return self.get(key, _SMALL_BYTES, is_cut_off)
        except NotFoundError:
            return None

    def etag(self, key: str) -> str | None:
        """Return the object's ETag, or None when the object does not exist."""
        try:
            with self._store_errors(key):
                etag: str = self._client().head_object(Bucket=self._bucket, Key=self._prefix + key)["ETag"]
                return etag
        except NotFoundError:
            # A HEAD response has no body, so it can't tell a missing object from a missing bucket. A GET can.
            found = self.find(key)
            return found.etag if found else None

    def create(self, key: str, data: bytes) -> str:
        """Write a new object and return its ETag; raise ConflictError when the object exists already."""
        return self._put(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Overwrite the object that has this ETag, and return the new ETag.

        Raise ConflictError when the object has changed or was removed.
        """
        try:
            return self._put(key, data, IfMatch=etag)
        except NotFoundError as error:
            raise ConflictError(f"{self.location}/{key} was removed meanwhile") from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing any that exists."""
        self._put(key, data)

    def remove(self, key: str, etag: str | None = None) -> None:
        """Remove an object if it exists; raise ConflictError when its ETag is not `etag`."""
        condition = {"IfMatch": etag} if etag else {}
        with self._store_errors(key):
            self._client().delete_object(Bucket=self._bucket, Key=self._prefix + key, **condition)

    def listing(self) -> list[str]:
        """Return the keys of all objects under the prefix, with the prefix stripped."""
        with self._store_errors(""):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [entry["Key"][len(self._prefix) :] for page in pages for entry in page.get("Contents", ())]

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        with self._store_errors(key):
            client = self._client()
            etag: str = client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition)["ETag"]
            return etag

    def _client(self) -> Any:
        # boto3: creating a client is not thread-safe, using one is.
        with self._lock:
            if self._cached_client is None:
                self._cached_client = boto3.session.Session().client("s3", config=_CONFIG)
            return self._cached_client

    @contextmanager
    def _store_errors(self, key: str) -> Iterator[None]:
        """Turn boto3's errors into the store's."""
        try:
            yield
        except ClientError as error:
            raise self._error_for(key, error) from error
        except (BotoCoreError, ValueError) as error:  # boto3 raises ValueError for an endpoint that is no URL
            raise StoreUnavailableError(f"model store {self.location}: {_one_line(str(error))}") from error

    def _error_for(self, key: str, error: ClientError) -> StoreUnavailableError | ConflictError | NotFoundError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code == "NoSuchBucket":
            return StoreUnavailableError(f"model store {self.location}: there is no bucket {self._bucket!r}; create it")
        if status in (409, 412):
            return ConflictError(f"{self.location}/{key} was written by another process meanwhile; read it again")
        # Any other 404 comes from a server that is not S3. It must not pass for an empty store.
        if code == "NoSuchKey" or (status == 404 and error.operation_name == "HeadObject"):
            return NotFoundError(f"{self.location}/{key} does not exist")
        if status in (401, 403) or code in _REFUSALS:
            return StoreUnavailableError(f"model store {self.location}: S3 refuses these credentials ({code})")
        return StoreUnavailableError(f"model store {self.location}: {_one_line(str(error))}")


def _one_line(text: str) -> str:
    """Return the text on one line, without any user and password in its URLs."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(text.split()))
