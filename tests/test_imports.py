"""The allowed imports between this repository's packages, checked in the source with `ast`.

Every import counts: at the top of a module, in a function, and under TYPE_CHECKING.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The packages of this repository that each package may import. `tests` may import all of them.
ARROWS = {
    "model_store": set[str](),
    "serving": set[str](),
    "trainer": {"model_store", "serving"},
    "predictor": {"model_store", "serving"},
    "epp": {"model_store", "serving"},
    "simulator": {"serving"},
    "headroom": {"model_store", "serving", "epp"},
    "lab": {"model_store", "serving", "trainer", "predictor", "epp", "simulator", "headroom"},
    "scripts": {"model_store", "serving", "trainer", "predictor", "epp", "simulator", "lab"},
}
# The picker's embedded client runs the predictor's engine in its own process.
EMBEDDED = "epp.prediction.embedded"
# Scheduling runs in production, in replays and in tests, so it must not depend on a transport, a cluster or a runtime.
FOREIGN_TO_SCHEDULING = {
    "aiohttp", "envoy", "google", "grpc", "grpc_health", "grpc_reflection", "h2", "hpack", "http", "httpx", "httpx2",
    "kr8s", "kubernetes", "lightkube", "onnxruntime", "prometheus_client", "requests", "socket", "starlette", "urllib",
    "uvicorn", "uvloop",
}  # fmt: skip
# The packages that each module of the server kit imports beyond Python's library. Its other modules import none.
NEEDED_BY_SERVING = {
    "serving.bearer_auth": {"starlette"},
    "serving.bodies": {"starlette"},
    "serving.command": {"click"},
    "serving.connection": {"starlette", "uvicorn"},
    "serving.grpc_auth": {"grpc"},
    "serving.grpc_credentials": {"grpc"},
    "serving.grpc_listening": {"grpc"},
    "serving.life": {"uvloop"},
    "serving.options": {"click"},
    "serving.web": {"starlette", "uvicorn", "uvloop"},
    "serving.workers": {"uvloop"},
}

Graph = Mapping[str, set[str]]


def read_imports(root: Path, packages: Iterable[str]) -> Graph:
    """Return the names that each module imports: full names of our modules, and package names of all others."""
    files = {_name(path.relative_to(root)): path for package in packages for path in (root / package).rglob("*.py")}
    return {module: set(_imported(ast.parse(path.read_text()), files.keys())) for module, path in files.items()}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, house: Iterable[str]) -> Iterator[str]:
    known = set(house)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the house uses absolute imports"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            while name not in known and "." in name:
                name = name.rpartition(".")[0]
            yield name


def circle(graph: Graph) -> list[str]:
    """Return the modules of one import circle, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def reached(graph: Graph, start: str) -> dict[str, str]:
    """Return every module that importing `start` may import, mapped to the module that imports it."""
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        parents = {module[:at] for at, letter in enumerate(module) if letter == "."}
        for name in graph.get(module, set()) | (parents & graph.keys()):
            if name not in found:
                found[name] = module
                waiting.append(name)
    return found


@pytest.fixture(scope="module")
def house() -> Graph:
    return read_imports(ROOT, (*ARROWS, "tests"))


def test_no_imports_form_a_circle(house: Graph) -> None:
    assert circle(house) == []


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_what_lies_below_it(house: Graph, package: str) -> None:
    members = {*ARROWS, "tests"}
    wrong = [
        f"{module} imports {name}"
        for module, names in house.items()
        for name in names
        if (importer := module.partition(".")[0]) == package
        and (imported := name.partition(".")[0]) in members - {importer} - ARROWS[importer]
        and not (module.startswith(EMBEDDED) and imported == "predictor")
    ]
    assert wrong == []


def test_scheduling_knows_no_transport_and_no_cluster(house: Graph) -> None:
    modules = [module for module in house if module.startswith("epp.scheduling.")]
    assert len(modules) > 20
    wrong = {
        f"{module} reaches {name} by {importer}"
        for module in modules
        for name, importer in reached(house, module).items()
        if name.partition(".")[0] in FOREIGN_TO_SCHEDULING
    }
    assert wrong == set()


def test_a_module_of_the_server_kit_needs_no_more_than_it_uses(house: Graph) -> None:
    needed = {}
    for module in house:
        if module.startswith("serving."):
            packages = {name.partition(".")[0] for name in reached(house, module)}
            if others := packages - sys.stdlib_module_names - {"serving"}:
                needed[module] = others
    assert needed == NEEDED_BY_SERVING


@pytest.mark.parametrize("module", ["epp.workers.supervisor", "predictor.workers"])
def test_a_supervisor_of_workers_imports_no_server(house: Graph, module: str) -> None:
    packages = {name.partition(".")[0] for name in reached(house, module)}
    assert packages.isdisjoint({"grpc", "onnxruntime", "starlette", "uvicorn"})


def _write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    "importing",
    [
        "from a import one",
        "import a.one",
        "from a.one import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.one import x",
        "def f():\n    from a.one import x",
    ],
)
def test_every_kind_of_import_circle_is_found(tmp_path: Path, importing: str) -> None:
    _write(tmp_path, {"a/one.py": "import a.two.deep\nx = 1", "a/two/deep.py": importing, "a/two/__init__.py": ""})
    assert set(circle(read_imports(tmp_path, ["a"]))) == {"a.one", "a.two.deep"}
    _write(tmp_path, {"a/two/deep.py": ""})
    assert circle(read_imports(tmp_path, ["a"])) == []


def test_reached_follows_other_modules_and_their_packages(tmp_path: Path) -> None:
    _write(tmp_path, {"a/one.py": "import b.two", "b/__init__.py": "import grpc.aio", "b/two.py": "", "b/three.py": ""})
    graph = read_imports(tmp_path, ["a", "b"])
    assert reached(graph, "a.one") == {"b.two": "a.one", "b": "b.two", "grpc": "b"}
    assert reached(graph, "b.three") == {"b": "b.three", "grpc": "b"}
