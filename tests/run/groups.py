"""A pytest plugin that tells pytest-xdist which tests stay together in one worker, and which tests start first.

Tests that share something expensive stay together: a cluster, a control plane, or a fixture of their module. Other slow
tests go to any free worker. The quick tests of a module form one group. Long groups come first, so that short ones fill
the end of the run.
"""

import contextlib
from collections.abc import Callable, Generator
from functools import cache
from typing import Any, Final

import pytest

from tests.epp.extproc.http2.conformance import H2SPEC
from tests.go_programs import BuildError, NoProgramError
from tests.kubernetes.binaries import PARTS, command_of, is_built

# Session fixtures that only one worker should start, longest first.
_SHARED = ("cluster", "plane")
_BUILT = "control_plane_programs"
_OF_A_MODULE = ("module", "package", "class")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Groups(), "groups")


class Groups:
    def __init__(self) -> None:
        self._is_built = is_built()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell each worker whether the control plane is built, so that all workers order the tests alike."""
        node.workerinput["control_plane_is_built"] = self._is_built

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        workerinput = getattr(config, "workerinput", None)
        if workerinput is None:
            return
        for item in items:
            group = _group(item)
            if group and item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(group))
        built = workerinput["control_plane_is_built"]
        items.sort(key=lambda item: _turn(item, built))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Build Go's programs before a test's time-out runs: a first build takes longer than a test may."""
        for fixture in _BUILDERS.keys() & _fixtures(item).keys():
            _build(fixture)
        return (yield)


@cache
def _build(fixture: str) -> None:
    """Build what a fixture needs, or wait for another process that builds it.

    Ignore failures here: the fixture reports them.
    """
    with contextlib.suppress(NoProgramError, BuildError):
        _BUILDERS[fixture]()


def _build_control_plane() -> None:
    for part in PARTS:
        command_of(part)


_BUILDERS: Final[dict[str, Callable[[], object]]] = {_BUILT: _build_control_plane, "h2spec": H2SPEC.build}


def _group(item: pytest.Item) -> str:
    """Return the name of the group that a test stays with, or an empty text if the test may run anywhere."""
    if shared := _shared(item):
        return shared
    shares = any(scope in _OF_A_MODULE for scope in _fixtures(item).values())
    return item.location[0] if shares or not _is_slow(item) else ""


def _turn(item: pytest.Item, built: bool) -> int:
    """Return a test's sort key: slow tests first, but tests of a control plane that is not built yet last."""
    if not built and _BUILT in _fixtures(item):
        return len(_SHARED) + 2
    if shared := _shared(item):
        return _SHARED.index(shared)
    return len(_SHARED) + (not _is_slow(item))


def _shared(item: pytest.Item) -> str:
    """Return the session fixture that a test shares with others, or an empty text if there is none."""
    return next((name for name in _SHARED if _fixtures(item).get(name) == "session"), "")


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _fixtures(item: pytest.Item) -> dict[str, str]:
    """Return the scopes of this project's fixtures that a test uses, directly or through other fixtures."""
    info = getattr(item, "_fixtureinfo", None)
    found = {name: definitions[-1] for name, definitions in info.name2fixturedefs.items()} if info else {}
    return {name: one.scope for name, one in found.items() if one.func.__module__.startswith("tests")}
