"""No two classes of a package share a name, so that a name alone identifies a class."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.test_imports import ARROWS, ROOT


@pytest.mark.parametrize("package", ARROWS)
def test_no_two_classes_of_a_package_have_one_name(package: str) -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for path in (ROOT / package).rglob("*.py"):
        if "protocol" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.removeprefix("_")].append(path.relative_to(ROOT))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
