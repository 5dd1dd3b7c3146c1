"""Tests of installed metadata: the packages that each part of the distribution brings, and the owner of each file."""

import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, files, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.image_locks import needed_packages

ROOT = Path(__file__).resolve().parents[1]
TRAINING = {"xgboost", "xgboost-cpu", "lightgbm", "scikit-learn", "pandas", "onnx", "onnxmltools", "scipy"}
ROUTING = {"lightkube", "kubernetes", "aiohttp", "envoy-data-plane", "grpcio-health-checking"}


def brought_by(extra: str) -> set[str]:
    """Return the names of all packages that `pip install headroom[extra]` installs."""
    found: set[str] = set()
    waiting = [("headroom", frozenset({extra}))]
    while waiting:
        name, extras = waiting.pop()
        if (key := f"{name}[{','.join(sorted(extras))}]") in found:
            continue
        found.add(key)
        for text in requires(name) or ():
            requirement = Requirement(text)
            wanted = {"", *extras}
            if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in wanted):
                waiting.append((re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras)))
    return {name.partition("[")[0] for name in found}


@pytest.mark.parametrize(("extra", "unwanted"), [("predictor", TRAINING | ROUTING), ("trainer", ROUTING)])
def test_a_part_does_not_install_packages_of_other_parts(extra: str, unwanted: set[str]) -> None:
    brought = brought_by(extra)
    assert {"numpy", "onnxruntime", "starlette"} <= brought
    assert not brought & unwanted


def test_the_picker_brings_one_http_client() -> None:
    assert needed_packages(["epp"]) & {"aiohttp", "httpx", "httpx2", "requests", "urllib3"} == {"aiohttp"}


def test_each_file_belongs_to_one_package() -> None:
    """If two packages own one file, the one installed last wins, so the imported code depends on chance."""
    lock = (ROOT / "requirements.lock").read_text()
    owners: dict[str, set[str]] = defaultdict(set)
    for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE):
        for path in owned_by(name):
            owners[path].add(name)
    # The locks of the images are parts of this one.
    assert {"grpc/__init__.py", "onnxruntime/__init__.py", "xgboost/__init__.py"} <= owners.keys()
    assert not {path: names for path, names in owners.items() if len(names) > 1}


def owned_by(name: str) -> set[str]:
    """Return the files of a package without its metadata, or none if the package is for another platform."""
    try:
        found = files(name) or ()
    except PackageNotFoundError:
        return set()
    return {str(path) for path in found if "__pycache__" not in path.parts and ".dist-info" not in path.parts[0]}
