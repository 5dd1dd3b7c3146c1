"""Objects under a prefix of an S3 bucket: read whole, written and removed on conditions."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from model_store.exceptions import ConflictError, NotFoundError, StoreUnavailableError

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
    # The store compares sha256 itself, and some servers don't know the checksums that boto3 would add.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_REFUSALS = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class Stored:
    """An object's bytes, and the ETag that stands for them in conditions."""

    data: bytes
    etag: str


class Bucket:
    """A client of one prefix. Endpoint, region and credentials are found as boto3 finds them.

    Every method may be called from any thread, and raises StoreUnavailableError when S3 can't be reached or refuses.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> Stored:
        """NotFoundError when there is no such object."""
        with self._reported(key):
            answer = self._client().get_object(Bucket=self._bucket, Key=self._prefix + key)
            with answer["Body"] as body:
                return Stored(body.read(), answer["ETag"])

    def find(self, key: str) -> Stored | None:
        """The object, or None when there is no such object."""
        try:
            return self.get(key)
        except NotFoundError:
            return None

    def etag(self, key: str) -> str | None:
        """The object's ETag, or None when there is no such object."""
        try:
            with self._reported(key):
                etag: str = self._client().head_object(Bucket=self._bucket, Key=self._prefix + key)["ETag"]
                return etag
        except NotFoundError:
            # The answer to a HEAD has no body, hence can't tell a missing object from a missing bucket.
            found = self.find(key)
            return found.etag if found else None

    def create(self, key: str, data: bytes) -> str:
        """Writes an object that must not be there yet, and returns its ETag; ConflictError when it is."""
        return self._put(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Writes over the object of that ETag, and returns the new ETag; ConflictError when it has changed or gone."""
        try:
            return self._put(key, data, IfMatch=etag)
        except NotFoundError as error:
            raise ConflictError(f"{self.location}/{key} has been removed meanwhile") from error

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whatever was there."""
        self._put(key, data)

    def remove(self, key: str, etag: str | None = None) -> None:
        """Removes an object, if it is there; ConflictError when `etag` is not its ETag."""
        condition = {"IfMatch": etag} if etag else {}
        with self._reported(key):
            self._client().delete_object(Bucket=self._bucket, Key=self._prefix + key, **condition)

    def listing(self) -> list[str]:
        """The keys of all objects under the prefix, without it."""
        with self._reported(""):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [entry["Key"][len(self._prefix) :] for page in pages for entry in page.get("Contents", ())]

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        with self._reported(key):
            client = self._client()
            etag: str = client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition)["ETag"]
            return etag

    def _client(self) -> Any:
        # Making a client is not thread-safe, using it is.
        with self._lock:
            if self._made is None:
                self._made = boto3.session.Session().client("s3", config=_CONFIG)
            return self._made

    @contextmanager
    def _reported(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._refused(key, error) from error
        except (BotoCoreError, ValueError) as error:  # boto3 raises ValueError for an endpoint that is no URL
            raise StoreUnavailableError(f"model store {self.location}: {_one_line(str(error))}") from error

    def _refused(self, key: str, error: ClientError) -> StoreUnavailableError | ConflictError | NotFoundError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code == "NoSuchBucket":
            return StoreUnavailableError(f"model store {self.location}: there is no bucket {self._bucket!r}; create it")
        if status in (409, 412):
            return ConflictError(f"{self.location}/{key} was written by another meanwhile; look again")
        # Any other 404 is that of a server which is no S3, and must not pass for an empty store.
        if code == "NoSuchKey" or (status == 404 and error.operation_name == "HeadObject"):
            return NotFoundError(f"{self.location}/{key} does not exist")
        if status in (401, 403) or code in _REFUSALS:
            return StoreUnavailableError(f"model store {self.location}: S3 refuses these credentials ({code})")
        return StoreUnavailableError(f"model store {self.location}: {_one_line(str(error))}")


def _one_line(text: str) -> str:
    """The text without line breaks, and without the user and password that a URL in it may carry."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(text.split()))
