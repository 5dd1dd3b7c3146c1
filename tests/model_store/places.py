"""Places that hold a store, with access to its raw files so that a test can alter them."""

import tempfile
from pathlib import Path
from typing import Protocol

from model_store.bucket import Bucket


class Place(Protocol):
    @property
    def location(self) -> str: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def names(self) -> list[str]:
        """Return the sorted names of the models' and generations' files; lock files are left out."""

    def another(self) -> str:
        """Return the location of another, empty store of the same kind."""


class FolderPlace:
    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        return str(self._root)

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def names(self) -> list[str]:
        files = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(str(path.relative_to(self._root)) for path in files)

    def another(self) -> str:
        return tempfile.mkdtemp(dir=self._root.parent)


class BucketPlace:
    def __init__(self, name: str, prefix: str = "pool/models") -> None:
        self._name, self._prefix = name, prefix
        self._bucket = Bucket(name, prefix)

    @property
    def location(self) -> str:
        return f"s3://{self._name}/{self._prefix}"

    def read(self, name: str) -> bytes:
        return self._bucket.get(name, 1 << 30).data

    def write(self, name: str, data: bytes) -> None:
        self._bucket.put(name, data)

    def names(self) -> list[str]:
        return sorted(key for key in self._bucket.listing() if not key.startswith("."))

    def another(self) -> str:
        return f"s3://{self._name}/other"
