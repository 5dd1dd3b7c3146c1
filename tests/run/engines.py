"""A pytest plugin for `--engines`, which runs the tests with real vLLM, and no others. They need 7 GB of packages.

`--engines-if-installed` runs them only where vLLM is installed already, and says so where it is not.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

FOLDER = "tests/engines"
FLAG, IF_INSTALLED = "--engines", "--engines-if-installed"
LEFT_OUT = (
    f"Tests with real vLLM are left out: it is not installed. `./scripts/test {FLAG}` installs it (7 GB) and runs them."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(FLAG, action="store_true", help="run the tests with real vLLM, and no others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect the tests with vLLM only if they are wanted. None leaves the choice to other plugins."""
    is_theirs = collection_path == config.rootpath / FOLDER
    return True if is_theirs and not config.getoption("engines") else None


def is_asked(arguments: Sequence[str]) -> bool:
    return FLAG in arguments or IF_INSTALLED in arguments


def only_with_engines(arguments: Sequence[str]) -> list[str]:
    """Return pytest's arguments for the tests with vLLM: those of the user, or all."""
    others = [argument for argument in arguments if argument not in (FLAG, IF_INSTALLED)]
    names_tests = any(Path(argument.partition("::")[0]).exists() for argument in others)
    return [FLAG, *others, *([] if names_tests else [FOLDER])]
