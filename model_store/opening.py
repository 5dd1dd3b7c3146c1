"""Open a model store by its location."""

from pathlib import Path

from model_store.exceptions import StoreError
from model_store.folder import FolderStore
from model_store.signing import NO_TRUST, Trust
from model_store.store import ModelStore


def open_store(location: str, trust: Trust = NO_TRUST) -> ModelStore:
    """Open the store at a folder's path or at s3://bucket/prefix.

    Raise StoreError for any other location, and for keys that can't be used.
    """
    trust.check_files()
    scheme, separator, path = location.partition("://")
    if not separator:
        return FolderStore(Path(location), trust)
    if scheme != "s3" or not path.partition("/")[0]:
        raise StoreError(f"model store {location!r}: only folders and s3://bucket/prefix are supported")
    return _open_s3(path, trust)


def _open_s3(path: str, trust: Trust) -> ModelStore:
    try:
        # boto3 is installed only with the extra `s3`.
        from model_store.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StoreError(f"model store s3://{path} needs {error.name}: install Headroom with its extra s3") from error
    bucket, _, prefix = path.partition("/")
    return S3Store(bucket, prefix.strip("/"), trust=trust)
