"""What installing a part of the distribution brings along, by the metadata of what is installed here."""

import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

TRAINING = {"xgboost", "xgboost-cpu", "lightgbm", "scikit-learn", "pandas", "onnx", "onnxmltools", "scipy"}
ROUTING = {"lightkube", "kubernetes", "xds-protos", "aiohttp", "envoy-data-plane", "grpcio-health-checking"}


def brought_by(extra: str) -> set[str]:
    """The names of all packages that `pip install headroom[extra]` installs."""
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
def test_a_part_brings_nothing_of_the_others(extra: str, unwanted: set[str]) -> None:
    brought = brought_by(extra)
    assert {"numpy", "onnxruntime", "starlette"} <= brought
    assert not brought & unwanted
